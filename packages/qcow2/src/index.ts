export type { Amendment } from './amend.ts';
export { BARRIER } from './barriers.ts';
export {
  type BitmapContent,
  type BitmapFacts,
  type Bitmaps,
  dirtyRanges,
  type NewBitmap,
} from './bitmap-operations.ts';
export type { Qcow2CreateOptions } from './create.ts';
export { isQcow2, type Qcow2Format, qcow2 } from './format.ts';
export type { Qcow2 } from './image.ts';
export type { Preallocation } from './preallocate.ts';
export type { RepairOptions, RepairReport } from './repair.ts';
export type { Snapshots } from './snapshot-operations.ts';
export type { RepairScope } from './survey.ts';
