export { backingName } from './backing-name.ts';
export { dependentsOf, imageOf, overlaysOf, strandedBy } from './dependents.ts';
export { ChainError, type ChainErrorCode } from './errors.ts';
export { identityOf } from './identity.ts';
export type {
  ChainLayer,
  LayerFacts,
  NodeId,
  OpenChain,
  OwnedExtent,
  Subchain,
  SubchainExtents,
} from './layer.ts';
export { type ImageLocks, type LockWanted, lockImage, lockImages } from './lock.ts';
export { markPath, readMark, writeMark } from './marks.ts';
export {
  identityKey,
  type OpenChainOptions,
  openChain,
  openLayer,
} from './open-chain.ts';
export { type ChainPolicy, defaultPolicy, type Formats } from './policy.ts';
export type { PoolGraph, PoolImage, PoolProblem } from './pool.ts';
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
export {
  type ChainEnvironment,
  factsOf,
  openImageAt,
  type ResolvedBacking,
  resolveBacking,
  rootsFor,
} from './resolve.ts';
export { type ScanOptions, scanPool } from './scan-pool.ts';
export { mergedExtents, type OwnedLayer, subchainExtents } from './subchain-extents.ts';
export { unreadableIn } from './unreadable.ts';
export { viewOf } from './view.ts';
