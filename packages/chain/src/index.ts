export { backingName } from './backing-name.ts';
export { dataFileOpener } from './data-file.ts';
export { DataFileLocks } from './data-file-locks.ts';
export { dependentsOf, imageOf, overlaysOf, strandedBy } from './dependents.ts';
export { ChainError, type ChainErrorCode, sharedDataFile } from './errors.ts';
export { namesProtocol, withoutFilePrefix } from './file-name.ts';
export { identityKey, identityOf } from './identity.ts';
export type {
  ChainLayer,
  DataFileFacts,
  LayerFacts,
  NodeId,
  OpenChain,
  Subchain,
  SubchainExtents,
} from './layer.ts';
export { type ResolvedBacking, resolveBacking, rootsFor } from './locate.ts';
export { type ImageLocks, type LockWanted, lockImage, lockImages } from './lock.ts';
export { forgetMark, markPath, readMark, writeMark } from './marks.ts';
export {
  type OpenChainOptions,
  openChain,
  openLayer,
} from './open-chain.ts';
export { type OwnedBatch, type OwnedExtent, OwnedList } from './owned-batch.ts';
export {
  type ChainEnvironment,
  type ChainPolicy,
  defaultPolicy,
  type Formats,
  type SharedLocks,
} from './policy.ts';
export type { PoolGraph, PoolImage, PoolProblem } from './pool.ts';
export { recognise } from './recognise.ts';
export {
  formatBytes,
  printable,
  renderDot,
  renderMermaid,
  renderSvg,
  renderTree,
  type TreeOf,
  treeLines,
} from './render.ts';
export { factsOf, openImageAt } from './resolve.ts';
export { type ScanOptions, scanPool } from './scan-pool.ts';
export { mergedExtents, type OwnedLayer, subchainExtents } from './subchain-extents.ts';
export { unreadableIn } from './unreadable.ts';
export { viewOf } from './view.ts';
