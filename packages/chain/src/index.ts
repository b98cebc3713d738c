export { ChainError, type ChainErrorCode } from './errors.ts';
export type {
  ChainLayer,
  LayerFacts,
  NodeId,
  OpenChain,
  OwnedExtent,
  Subchain,
  SubchainExtents,
} from './layer.ts';
export { type ChainPolicy, defaultPolicy, type Formats } from './policy.ts';
export type { PoolGraph, PoolImage, PoolProblem } from './pool.ts';
