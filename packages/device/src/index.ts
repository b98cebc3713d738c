export type { DirectReads } from '@downfold/units';
export type { BlockStatus } from './block-status.ts';
export { Device } from './device.ts';
export { DirtyMap } from './dirty-map.ts';
export { DeviceError, type DeviceErrorCode } from './errors.ts';
export { Latency } from './latency.ts';
export { Mirror, type MirrorOptions } from './mirror.ts';
export type { Change, WriteObserver } from './observers.ts';
export type {
  ChangeOptions,
  DeviceOptions,
  LayerLocks,
  ReplaceOptions,
  StatusOptions,
  ZeroOptions,
} from './options.ts';
export type { Drained } from './request-queue.ts';
export type { DrainedSection } from './section.ts';
