export type {
  BackendDriver,
  CreateFileOptions,
  DirectoryEntry,
  FileFacts,
  OpenMode,
  StorageBackend,
  StorageLock,
} from './backend.ts';
export { bytesTo, NOTHING_MORE } from './bytes-to.ts';
export { isFull, StorageError, type StorageErrorCode } from './errors.ts';
export {
  conflictOf,
  LOSER,
  type LockConflict,
  type LockRequest,
  PERMISSIONS,
  type Permission,
  READER,
  WRITER,
} from './lock.ts';
export { LockTable, lockedError, type TableLock } from './lock-table.ts';
export { numberOf } from './number-of.ts';
export { closesWith, openBackend, openStorage } from './open.ts';
export { pathBeside } from './path-beside.ts';
export { pathFrom } from './path-from.ts';
export { bytesOfPieces, piecesAfter, piecesUpTo } from './pieces.ts';
export { type BackendLoader, isUrl, routed } from './routed.ts';
export type {
  CopyPiece,
  FileIdentity,
  FileRun,
  OperationOptions,
  Storage,
  StorageDriver,
  StorageSupport,
  WriteOptions,
} from './storage.ts';
export { isUtf8 } from './utf8.ts';
