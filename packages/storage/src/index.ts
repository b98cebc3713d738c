export type {
  BackendDriver,
  DirectoryEntry,
  FileFacts,
  OpenMode,
  StorageBackend,
} from './backend.ts';
export { StorageError, type StorageErrorCode } from './errors.ts';
export { openBackend, openStorage } from './open.ts';
export type {
  FileIdentity,
  OperationOptions,
  Storage,
  StorageDriver,
  StorageSupport,
  WriteOptions,
} from './storage.ts';
