import { type CraftedCase, type Expected, STANDARD_VIEW } from './case.ts';
import { COPIED, PLACE, type Qcow2Spec, qcow2 } from './qcow2.ts';

const CLUSTER = 65536n;
const at = (cluster: number): bigint => BigInt(cluster) * CLUSTER;
const refused: Expected = { codes: ['IMAGE_CORRUPT'] };
/** An offset of zero means `unallocated`, whatever the other bits say. */
const asUnallocated: Expected = { codes: ['IMAGE_CORRUPT'], view: [] };
/** Reading may be refused; if it is not, a check must find the overlap. */
const found = (byte: number | null): Expected => ({
  codes: ['IMAGE_CORRUPT'],
  check: ['corruptions'],
  ...(byte === null ? {} : { view: [{ at: 0, length: 65536, byte }] }),
});

function broken(
  name: string,
  because: string,
  expected: Expected,
  spec: Qcow2Spec,
  qemu: CraftedCase['qemu'] = 'accepts-broken',
): CraftedCase {
  return { name, because, expected, qemu, image: qcow2(spec) };
}

const roots: readonly CraftedCase[] = [
  broken('l1_past_eof', 'the L1 table lies past the end of the file', refused, {
    header: { l1Offset: at(1 << 20) },
  }),
  broken('l1_is_header', 'the L1 table is the header', refused, { header: { l1Offset: 0 } }),
  broken('reftable_offset_0', 'the refcount table is the header', refused, {
    header: { reftableOffset: 0 },
  }),
  broken(
    'reftable_past_eof',
    'the refcount table lies past the end of the file',
    {
      ...found(0xa5),
      view: STANDARD_VIEW,
    },
    { header: { reftableOffset: at(1 << 20) } },
  ),
  broken(
    'refcounts_all_zero',
    'every cluster is said to be free',
    {
      ...found(0xa5),
      view: STANDARD_VIEW,
    },
    { refcounts: [0] },
  ),
];

const l2: readonly CraftedCase[] = [
  broken('l2_is_l1', 'the L2 table is the L1 table', refused, { l1: { 0: COPIED | at(PLACE.l1) } }),
  broken('l2_is_header', 'the L2 table is at offset 0', asUnallocated, { l1: { 0: COPIED } }),
  broken('l2_is_refblock', 'the L2 table is the refcount block', refused, {
    l1: { 0: COPIED | at(PLACE.refblock) },
  }),
  broken('l2_past_eof', 'the L2 table lies past the end of the file', refused, {
    l1: { 0: COPIED | at(1 << 20) },
  }),
  broken(
    'l2_unaligned',
    'the L2 table is not on a cluster',
    refused,
    { l1: { 0: COPIED | (at(PLACE.l2) + 512n) } },
    'refuses',
  ),
  broken('l1_reserved_bits', 'reserved bits of the L1 entry are set', refused, {
    l1: { 0: COPIED | at(PLACE.l2) | (1n << 56n) | 1n },
  }),
];

const data: readonly CraftedCase[] = [
  broken('data_is_header', 'a data cluster at offset 0', asUnallocated, { l2: { 0: COPIED } }),
  broken('data_is_own_l2', 'a data cluster is the L2 table that maps it', found(null), {
    l2: { 0: COPIED | at(PLACE.l2) },
  }),
  broken('data_is_refblock', 'a data cluster is a refcount block', found(null), {
    l2: { 0: COPIED | at(PLACE.refblock) },
  }),
  broken('data_past_eof', 'a data cluster lies past the end of the file', refused, {
    l2: { 0: COPIED | at(1 << 20) },
  }),
  broken('data_above_2_53', 'a host offset that a JavaScript number would round', refused, {
    l2: { 0: COPIED | ((1n << 55n) + CLUSTER) },
  }),
  broken(
    'data_unaligned',
    'a data cluster is not on a cluster',
    refused,
    {
      l2: { 0: COPIED | (at(PLACE.data) + 512n) },
    },
    'refuses',
  ),
  broken('data_reserved_bits', 'reserved bits of the L2 entry are set', refused, {
    l2: { 0: COPIED | at(PLACE.data) | (1n << 57n) },
  }),
  broken(
    'two_guests_one_cluster',
    'two guest clusters share one host cluster',
    {
      ...found(null),
      view: [{ at: 0, length: 131072, byte: 0xa5 }],
    },
    { l2: { 0: COPIED | at(PLACE.data), 1: COPIED | at(PLACE.data) } },
  ),
  broken(
    'zero_flag_in_v2',
    'the zero flag, which v2 does not have',
    refused,
    {
      header: { version: 2 },
      l2: { 0: COPIED | at(PLACE.data) | 1n },
    },
    'refuses',
  ),
  broken(
    'subcluster_both_bits',
    'a subcluster is both allocated and zero',
    refused,
    {
      header: { incompatible: 1 << 4 },
      l2: { 0: COPIED | at(PLACE.data), 1: 0xffff_ffff_ffff_ffffn },
    },
    'refuses',
  ),
  broken(
    'subcluster_nowhere',
    'a subcluster is allocated, its cluster is not',
    refused,
    {
      header: { incompatible: 1 << 4 },
      l2: { 0: 0n, 1: 0xffff_ffffn },
    },
    'refuses',
  ),
];

const flags: readonly CraftedCase[] = [
  broken(
    'dirty',
    'refcounts may be stale; reading is fine',
    { view: STANDARD_VIEW },
    {
      header: { incompatible: 1 },
    },
    'reads',
  ),
  broken(
    'corrupt',
    'marked corrupt; reading is fine',
    { view: STANDARD_VIEW },
    {
      header: { incompatible: 2 },
    },
    'reads',
  ),
  broken(
    'size_not_512',
    'a virtual size that is not a multiple of 512',
    {
      codes: ['IMAGE_CORRUPT'],
      view: STANDARD_VIEW,
    },
    { header: { size: (1 << 20) - 7 } },
  ),
  broken(
    'leaked_cluster',
    'a cluster is counted and nobody refers to it',
    {
      view: STANDARD_VIEW,
      check: ['leaks'],
    },
    { refcounts: [1, 1, 1, 1, 1, 1, 1], length: 7 * 65536 },
    'reads',
  ),
];

/** Tables that point where they must not. */
export const tableCases: readonly CraftedCase[] = [...roots, ...l2, ...data, ...flags];
