// A second, tiny encoder of the format, so that packages/qcow2 is judged by bytes it did not write.
// Layout: docs/interop/qcow2.txt of QEMU (the specification).

import { entries16, entries64, type SparseFile } from './sparse.ts';

/** L1 and L2 entry: the cluster's refcount is exactly one. */
export const COPIED: bigint = 1n << 63n;
/** L2 entry: a compressed cluster descriptor. */
export const COMPRESSED: bigint = 1n << 62n;

const HEADER_FIELDS = {
  magic: [0, 4],
  version: [4, 4],
  backingOffset: [8, 8],
  backingSize: [16, 4],
  clusterBits: [20, 4],
  size: [24, 8],
  cryptMethod: [32, 4],
  l1Size: [36, 4],
  l1Offset: [40, 8],
  reftableOffset: [48, 8],
  reftableClusters: [56, 4],
  snapshots: [60, 4],
  snapshotsOffset: [64, 8],
  incompatible: [72, 8],
  compatible: [80, 8],
  autoclear: [88, 8],
  refcountOrder: [96, 4],
  headerLength: [100, 4],
  compressionType: [104, 1],
} as const;

/** Fields of the header, by name; values are written as they are, right or wrong. */
export type Header = { readonly [Field in keyof typeof HEADER_FIELDS]?: bigint | number };

/** One header extension. `length` is what it claims; its data's length when not given. */
interface Extension {
  readonly type: number;
  readonly data: Uint8Array;
  readonly length?: number;
}

/** What differs from a valid image. */
export interface Qcow2Spec {
  readonly clusterBits?: number;
  readonly header?: Header;
  readonly extensions?: readonly Extension[];
  /** Name bytes and what the extension says of the format; `null`: no extension. */
  readonly backing?: { readonly name: Uint8Array | string; readonly format: string | null };
  /** Index of an entry to its value; the rest is zero. Default: entry 0 maps the L2 table. */
  readonly l1?: Readonly<Record<number, bigint>>;
  /** Default: entry 0 maps the data cluster. Extended L2: two words an entry. */
  readonly l2?: Readonly<Record<number, bigint>>;
  /** Refcounts by cluster; default one for each of the six clusters. */
  readonly refcounts?: readonly number[];
  /** What lies in the data cluster; default 0xa5 throughout. */
  readonly data?: Uint8Array;
  readonly more?: SparseFile['pieces'];
  /** Bytes of the file; default up to the end of the data cluster. */
  readonly length?: number;
}

/** Where the standard image has its parts, in clusters: header 0, then these. */
export const PLACE = { reftable: 1, refblock: 2, l1: 3, l2: 4, data: 5, end: 6 } as const;

/** The byte that fills the data cluster. */
const FILL = 0xa5;

/**
 * A small v3 image, valid unless `spec` says otherwise: a 1 MiB disk, its first cluster full of 0xa5, six clusters
 * (header, refcount table, refcount block, L1, L2, data).
 */
export function qcow2(spec: Qcow2Spec = {}): SparseFile {
  const bits = spec.clusterBits ?? 16;
  const cluster = 2 ** bits;
  const host = (index: number): bigint => BigInt(index * cluster);
  const l1 = spec.l1 ?? { 0: COPIED | host(PLACE.l2) };
  const l2 = spec.l2 ?? { 0: COPIED | host(PLACE.data) };
  return {
    length: spec.length ?? PLACE.end * cluster,
    pieces: [
      { at: cluster * PLACE.reftable, bytes: entries64([host(PLACE.refblock)]) },
      { at: cluster * PLACE.refblock, bytes: entries16(spec.refcounts ?? [1, 1, 1, 1, 1, 1]) },
      { at: cluster * PLACE.l1, bytes: table(l1) },
      { at: cluster * PLACE.l2, bytes: table(l2) },
      { at: cluster * PLACE.data, bytes: spec.data ?? new Uint8Array(cluster).fill(FILL) },
      { at: 0, bytes: headerCluster(spec, bits) },
      ...(spec.more ?? []),
    ],
  };
}

function table(values: Readonly<Record<number, bigint>>): Uint8Array {
  const last = Math.max(-1, ...Object.keys(values).map(Number));
  return entries64(Array.from({ length: last + 1 }, (_, index) => values[index] ?? 0n));
}

function headerCluster(spec: Qcow2Spec, bits: number): Uint8Array {
  const cluster = 2 ** bits;
  const version = Number(spec.header?.version ?? 3);
  const start = version === 2 ? 72 : 112;
  const extensions = encodeExtensions([...formatExtension(spec), ...(spec.extensions ?? [])]);
  const name = Buffer.from(spec.backing?.name ?? '');
  const nameAt = start + extensions.length;
  const fields: Header = {
    magic: 0x514649fb,
    version,
    backingOffset: spec.backing === undefined ? 0 : nameAt,
    backingSize: name.length,
    clusterBits: bits,
    size: 1 << 20,
    l1Size: Math.max(1, Math.ceil((1 << 20) / (cluster * (cluster / 8)))),
    l1Offset: PLACE.l1 * cluster,
    reftableOffset: PLACE.reftable * cluster,
    reftableClusters: 1,
    ...(version === 2 ? {} : { refcountOrder: 4, headerLength: 112 }),
    ...spec.header,
  };
  const bytes = Buffer.alloc(Math.max(cluster, nameAt + name.length));
  for (const [field, value] of Object.entries(fields)) {
    const [at, length] = HEADER_FIELDS[field as keyof typeof HEADER_FIELDS];
    const word = Buffer.alloc(8);
    word.writeBigUInt64BE(BigInt.asUintN(64, BigInt(value)));
    word.copy(bytes, at, 8 - length);
  }
  bytes.set(extensions, start);
  bytes.set(name, nameAt);
  return bytes;
}

function formatExtension(spec: Qcow2Spec): Extension[] {
  const format = spec.backing?.format ?? null;
  return format === null ? [] : [{ type: 0xe2792aca, data: Buffer.from(format) }];
}

function encodeExtensions(list: readonly Extension[]): Uint8Array {
  const parts = list.flatMap(({ type, data, length }) => {
    const head = Buffer.alloc(8);
    head.writeUInt32BE(type, 0);
    head.writeUInt32BE(length ?? data.length, 4);
    return [head, data, Buffer.alloc((8 - (data.length % 8)) % 8)];
  });
  return list.length === 0 ? Buffer.alloc(0) : Buffer.concat([...parts, Buffer.alloc(8)]);
}
