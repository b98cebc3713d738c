import { deflateRawSync } from 'node:zlib';
import { type CraftedCase, type Expected, STANDARD_VIEW } from './case.ts';
import { COMPRESSED, COPIED, PLACE, qcow2 } from './qcow2.ts';
import { entries16, entries64, type SparseFile } from './sparse.ts';

const CLUSTER = 65536;
const MIB = 1 << 20;

/** Descriptor of a compressed cluster that starts at the data cluster and takes `sectors` sectors. */
function descriptor(sectors: number, at = PLACE.data * CLUSTER): bigint {
  const offsetBits = 62n - (16n - 8n);
  return COMPRESSED | (BigInt(sectors - 1) << offsetBits) | BigInt(at);
}

function compressed(
  name: string,
  because: string,
  expected: Expected,
  stream: Uint8Array,
  entry: bigint,
  qemu: CraftedCase['qemu'],
  zstd = false,
): CraftedCase {
  const header = zstd ? { incompatible: 1 << 3, compressionType: 1 } : {};
  const data = new Uint8Array(CLUSTER);
  data.set(stream);
  return { name, because, expected, qemu, image: qcow2({ header, data, l2: { 0: entry } }) };
}

const refused: Expected = { codes: ['IMAGE_CORRUPT'] };
const bomb = deflateRawSync(new Uint8Array(16 * MIB), { windowBits: 12 });
const whole = deflateRawSync(new Uint8Array(CLUSTER).fill(0xa5), { windowBits: 12 });
const half = deflateRawSync(new Uint8Array(CLUSTER / 2).fill(0xa5), { windowBits: 12 });
const noise = Uint8Array.from({ length: 4096 }, (_, index) => (index * 167 + 13) % 251);

const streams: readonly CraftedCase[] = [
  compressed(
    'compressed_valid',
    'a sound compressed cluster: the corpus must not be refused wholesale',
    { view: STANDARD_VIEW },
    whole,
    descriptor(Math.ceil(whole.length / 512)),
    'reads',
  ),
  compressed(
    'compressed_bomb',
    'a stream of 16 MiB for a cluster of 64 KiB; only the cluster may come out',
    { codes: ['IMAGE_CORRUPT'], view: [] },
    bomb,
    descriptor(Math.ceil(bomb.length / 512)),
    'reads',
  ),
  compressed(
    'compressed_short',
    'the stream ends after half a cluster',
    refused,
    half,
    descriptor(Math.ceil(half.length / 512)),
    'refuses',
  ),
  compressed('compressed_noise', 'no deflate stream', refused, noise, descriptor(8), 'refuses'),
  compressed(
    'compressed_past_eof',
    'the compressed cluster lies past the end of the file',
    refused,
    whole,
    descriptor(8, 2 ** 40),
    'refuses',
  ),
  compressed('zstd_noise', 'no zstd frame', refused, noise, descriptor(8), 'refuses', true),
];

/** 1 TiB of guest that is one L2 table 2,048 times over, and one data cluster 16 million times. */
function alias(): CraftedCase {
  const l2 = COPIED | BigInt(PLACE.l2 * CLUSTER);
  const data = COPIED | BigInt(PLACE.data * CLUSTER);
  const fill = (entry: bigint, count: number): Record<number, bigint> =>
    Object.fromEntries(Array.from({ length: count }, (_, index) => [index, entry]));
  return {
    name: 'alias_1tib',
    because: 'a 384 KiB file whose tables alias one another into 1 TiB of data',
    expected: {
      codes: ['IMAGE_CORRUPT'],
      check: ['corruptions'],
      view: [{ at: 0, length: 2 ** 40, byte: 0xa5 }],
    },
    qemu: 'hangs',
    image: qcow2({
      header: { size: 1n << 40n, l1Size: 2048 },
      l1: fill(l2, 2048),
      l2: fill(data, 8192),
    }),
  };
}

/** A legal L1 table of 32 MiB, the largest there may be: 128 GiB in clusters of 512 bytes, nothing allocated. */
function largestL1(): CraftedCase {
  const cluster = 512;
  const reftableClusters = 5;
  const clusters = (known: number): number => known + 65536;
  const blocks = Math.ceil(clusters(1 + reftableClusters + 260) / 256);
  const l1Cluster = 1 + reftableClusters + blocks;
  const total = clusters(l1Cluster);
  const blockAt = (index: number): bigint => BigInt((1 + reftableClusters + index) * cluster);
  return {
    name: 'l1_32mib',
    because: 'the largest legal L1 table, 32 MiB of zeros in a sparse file',
    expected: { codes: ['IMAGE_LIMIT'], view: [], check: ['clean'] },
    qemu: 'hangs',
    image: qcow2({
      clusterBits: 9,
      header: {
        size: 2 ** 37,
        l1Size: 2 ** 22,
        l1Offset: l1Cluster * cluster,
        reftableOffset: cluster,
        reftableClusters,
      },
      l1: {},
      l2: {},
      data: new Uint8Array(0),
      refcounts: [],
      length: total * cluster,
      more: [
        { at: cluster, bytes: entries64(Array.from({ length: blocks }, (_, i) => blockAt(i))) },
        {
          at: (1 + reftableClusters) * cluster,
          bytes: entries16(new Array<number>(total).fill(1)),
        },
      ],
    }),
  };
}

/** 65,536 snapshots, each an empty entry, in a hole of the file. */
function manySnapshots(): CraftedCase {
  const entryBytes = 40;
  const tableClusters = Math.ceil((65536 * entryBytes) / CLUSTER);
  const image: SparseFile = qcow2({
    header: { version: 2, snapshots: 65536, snapshotsOffset: PLACE.end * CLUSTER },
    refcounts: new Array<number>(PLACE.end + tableClusters).fill(1),
    length: (PLACE.end + tableClusters) * CLUSTER,
  });
  return {
    name: 'snapshots_65536',
    because: '65,536 empty internal snapshots in a sparse file',
    expected: { codes: ['IMAGE_LIMIT', 'IMAGE_CORRUPT'], view: STANDARD_VIEW },
    qemu: 'hangs',
    image,
  };
}

const snapshots: readonly CraftedCase[] = [
  {
    name: 'snapshot_table_past_eof',
    because: 'the snapshot table lies past the end of the file',
    expected: { codes: ['IMAGE_CORRUPT'] },
    qemu: 'accepts-broken',
    image: qcow2({ header: { snapshots: 3, snapshotsOffset: 2 ** 40 } }),
  },
  {
    name: 'snapshot_l1_above_2_53',
    because: "a snapshot's L1 table lies where a JavaScript number would round",
    expected: { codes: ['IMAGE_CORRUPT'] },
    qemu: 'accepts-broken',
    image: qcow2({
      header: { version: 2, snapshots: 1, snapshotsOffset: PLACE.end * CLUSTER },
      length: (PLACE.end + 1) * CLUSTER,
      more: [{ at: PLACE.end * CLUSTER, bytes: entries64([(1n << 62n) + 1n, 64n << 32n]) }],
    }),
  },
  {
    name: 'snapshot_l1_is_header',
    because: "a snapshot's L1 table is the header",
    expected: { codes: ['IMAGE_CORRUPT'], view: STANDARD_VIEW, check: ['corruptions'] },
    qemu: 'accepts-broken',
    image: qcow2({
      header: { version: 2, snapshots: 1, snapshotsOffset: PLACE.end * CLUSTER },
      refcounts: [1, 1, 1, 1, 1, 1, 1],
      length: (PLACE.end + 1) * CLUSTER,
      more: [{ at: PLACE.end * CLUSTER, bytes: entries64([0n, 64n << 32n, 0n, 0n, 0n]) }],
    }),
  },
];

/** Content and cost: streams that do not decode, bombs, and metadata that is legal and enormous. */
export const contentCases: readonly CraftedCase[] = [
  ...streams,
  ...snapshots,
  alias(),
  largestL1(),
  manySnapshots(),
];
