import type { CraftedCase, Expected } from './case.ts';
import { type Header, qcow2 } from './qcow2.ts';
import { entries64 } from './sparse.ts';

const corrupt: Expected = { codes: ['IMAGE_CORRUPT'] };
const unsupported: Expected = { codes: ['IMAGE_UNSUPPORTED'] };
const limit: Expected = { codes: ['IMAGE_LIMIT', 'IMAGE_CORRUPT'] };

function header(
  name: string,
  because: string,
  expected: Expected,
  fields: Header,
  clusterBits = 16,
): CraftedCase {
  return {
    name,
    because,
    expected,
    qemu: 'refuses',
    image: qcow2({ header: fields, clusterBits }),
  };
}

const sizes: readonly CraftedCase[] = [
  header('header_length_huge', 'header_length is far beyond the header cluster', corrupt, {
    headerLength: 0xffff_fff8,
  }),
  header('header_length_103', 'header_length is shorter than a v3 header', corrupt, {
    headerLength: 103,
  }),
  header('cluster_bits_8', 'clusters of 256 B, below the smallest legal', corrupt, {
    clusterBits: 8,
  }),
  header('cluster_bits_22', 'clusters of 4 MiB, above the largest legal', corrupt, {
    clusterBits: 22,
  }),
  header('cluster_bits_63', 'a shift by 63: 32-bit arithmetic wraps', corrupt, {
    clusterBits: 63,
  }),
  header('size_2_63', 'virtual size with the sign bit set', limit, { size: 1n << 63n }),
  header('size_2_53_plus_1', 'virtual size that a JavaScript number would round', limit, {
    size: (1n << 53n) + 1n,
  }),
  header('l1_too_large', 'l1_size of 2^31 entries: 16 GiB of table', limit, {
    l1Size: 0x8000_0000,
  }),
  header('l1_too_small', 'the L1 table does not cover the virtual size', corrupt, {
    size: 1n << 40n,
  }),
  header('l1_unaligned', 'l1_table_offset is not on a cluster', corrupt, {
    l1Offset: 3 * 65536 + 8,
  }),
  header('l1_negative_offset', 'l1_table_offset has the sign bit set', corrupt, {
    l1Offset: (1n << 63n) + 0x30000n,
  }),
  header('reftable_too_large', 'refcount table of 2^32-1 clusters', limit, {
    reftableClusters: 0xffff_ffff,
  }),
  header('reftable_0_clusters', 'no refcount table at all', corrupt, { reftableClusters: 0 }),
  header('refcount_order_7', 'refcounts of 128 bits', corrupt, { refcountOrder: 7 }),
  header('snapshots_2_32_1', '2^32-1 internal snapshots', limit, {
    snapshots: 0xffff_ffff,
    snapshotsOffset: 4 * 65536,
  }),
];

const features: readonly CraftedCase[] = [
  header('incompat_bit_5', 'an incompatible feature nobody knows', unsupported, {
    incompatible: 1 << 5,
  }),
  header('incompat_bit_63', 'an incompatible feature in the upper word', unsupported, {
    incompatible: 1n << 63n,
  }),
  header('version_4', 'a version from the future', unsupported, { version: 4 }),
  header(
    'encrypted_luks',
    'LUKS encryption is announced',
    {
      codes: ['IMAGE_UNSUPPORTED', 'IMAGE_CORRUPT'],
    },
    { cryptMethod: 2 },
  ),
  header(
    'crypt_method_9',
    'an encryption method that does not exist',
    {
      codes: ['IMAGE_UNSUPPORTED', 'IMAGE_CORRUPT'],
    },
    { cryptMethod: 9 },
  ),
  header(
    'compression_type_7',
    'a compression type that does not exist',
    {
      codes: ['IMAGE_UNSUPPORTED', 'IMAGE_CORRUPT'],
    },
    { compressionType: 7, incompatible: 1 << 3 },
  ),
  header('compression_without_bit', 'zstd is announced, its feature bit is not', corrupt, {
    compressionType: 1,
  }),
  header(
    'extended_l2_small_clusters',
    'subclusters of 128 B',
    corrupt,
    {
      incompatible: 1 << 4,
    },
    12,
  ),
  header('data_file_no_name', 'external data file bit without a name', unsupported, {
    incompatible: 1 << 2,
  }),
];

const extensions: readonly CraftedCase[] = [
  {
    name: 'extension_length',
    because: 'a header extension claims 2^32-1 bytes',
    expected: corrupt,
    qemu: 'refuses',
    image: qcow2({
      extensions: [{ type: 0x12345678, data: Buffer.alloc(8), length: 0xffff_ffff }],
    }),
  },
  {
    name: 'bitmap_dir_huge',
    because: 'the bitmap directory claims 2^62 bytes',
    expected: { codes: ['IMAGE_LIMIT', 'IMAGE_CORRUPT'] },
    qemu: 'refuses',
    image: qcow2({
      header: { autoclear: 1 },
      extensions: [
        { type: 0x23852875, data: entries64([1n << 32n, 1n << 62n, BigInt(4 * 65536)]) },
      ],
    }),
  },
  {
    name: 'data_file_outside',
    because: 'an external data file that is a secret of the host (CVE-2024-32498)',
    expected: unsupported,
    qemu: 'follows',
    image: qcow2({
      header: { incompatible: 1 << 2 },
      extensions: [{ type: 0x44415441, data: Buffer.from('../outside/secret.raw') }],
    }),
  },
];

const files: readonly CraftedCase[] = [
  {
    name: 'empty_file',
    because: 'no byte at all',
    expected: { codes: ['IMAGE_NOT_RECOGNISED', 'IMAGE_CORRUPT'] },
    qemu: 'refuses',
    image: { length: 0, pieces: [] },
  },
  {
    name: 'truncated_header',
    because: 'the file ends inside the header',
    expected: { codes: ['IMAGE_NOT_RECOGNISED', 'IMAGE_CORRUPT'] },
    qemu: 'refuses',
    image: qcow2({ length: 50 }),
  },
  {
    name: 'wrong_magic',
    because: 'not qcow2 at all',
    expected: { codes: ['IMAGE_NOT_RECOGNISED'] },
    qemu: 'refuses',
    image: qcow2({ header: { magic: 0x514649fc } }),
  },
];

/** Headers that lie: sizes, features, extensions, and files that are no image. */
export const headerCases: readonly CraftedCase[] = [...sizes, ...features, ...extensions, ...files];
