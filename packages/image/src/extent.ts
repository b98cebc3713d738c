import type { GuestRange, HostOffset } from '@downfold/units';

/**
 * What one layer says of a range: a union, not flags, so that the compiler asks every reader about `zero`.
 * `zero` hides the backing file; `unallocated` defers to it.
 */
export type Allocation =
  | {
      readonly status: 'data';
      /** Where the first byte lies in `Image.data`; the rest follows contiguously. */
      readonly host: HostOffset;
    }
  | { readonly status: 'compressed' }
  | {
      readonly status: 'zero';
      /** Host space is reserved but its content is not used. */
      readonly preallocated: boolean;
    }
  | { readonly status: 'unallocated' };

/** A maximal run of one allocation status (`data` and preallocated zeros: also contiguous in the file). */
export type Extent = GuestRange & Allocation;
