import { deflateRawSync } from 'node:zlib';
import { COMPRESSED, COPIED, PLACE, type Qcow2Spec, qcow2 } from '../crafted/qcow2.ts';
import { entries64, type SparseFile } from '../crafted/sparse.ts';
import { type Place, placesOf } from '../mutants/places.ts';

/** A valid image with one value of its metadata changed. */
export interface AgreementCase {
  /** What it was made of, and the field: many cases have the same. */
  readonly kind: string;
  readonly field: string;
  /** What the field says, as people write it. */
  readonly value: string;
  readonly image: Uint8Array;
}

const CLUSTER = 4096;
const at = (cluster: number): number => cluster * CLUSTER;
const small = { clusterBits: 12 };
const shared = { l1: { 0: BigInt(at(PLACE.l2)) }, l2: { 0: BigInt(at(PLACE.data)) } };

/** Images that both read; `fields`: which of their places are changed. */
const KINDS: readonly {
  readonly name: string;
  readonly spec: Qcow2Spec;
  readonly fields: RegExp;
}[] = [
  {
    name: 'v3',
    spec: small,
    fields: /^header: |^L1\[0\]|^L2\[[01]\]|^refcount table\[0\]|^refcounts\[0\]/,
  },
  {
    name: 'v2',
    spec: { ...small, header: { version: 2 } },
    fields: /cluster_bits|: size|l1_size|^L2\[0\]/,
  },
  {
    name: 'extended L2',
    spec: {
      clusterBits: 14,
      header: { incompatible: 1 << 4 },
      l1: { 0: COPIED | BigInt(PLACE.l2 * 16_384) },
      l2: { 0: COPIED | BigInt(PLACE.data * 16_384), 1: 0xffff_ffffn },
    },
    fields: /^L2\[[0-2]\]|cluster_bits/,
  },
  {
    name: 'compressed',
    spec: {
      ...small,
      l2: { 0: COMPRESSED | BigInt(at(PLACE.data)) },
      data: Buffer.concat([
        deflateRawSync(new Uint8Array(CLUSTER).fill(0xa5)),
        new Uint8Array(CLUSTER),
      ]).subarray(0, CLUSTER),
    },
    fields: /^L2\[0\]|compression_type|incompatible/,
  },
  {
    name: 'backing',
    spec: { ...small, backing: { name: 'below.raw', format: 'raw' } },
    fields: /backing|^extension/,
  },
  {
    name: 'snapshot',
    spec: withSnapshot(),
    fields: /^snapshot: |^snapshot L1\[0\]|nb_snapshots|snapshots_offset/,
  },
  {
    name: 'bitmap',
    spec: withBitmap(),
    fields: /^bitmap: |^bitmap table\[0\]|^extension|autoclear/,
  },
];

function withSnapshot(): Qcow2Spec {
  const entry = Buffer.alloc(72);
  entry.writeBigUInt64BE(BigInt(at(PLACE.end + 1)), 0);
  entry.writeUInt32BE(1, 8);
  entry.writeUInt16BE(1, 12);
  entry.writeUInt16BE(3, 14);
  entry.writeUInt32BE(24, 36);
  entry.writeBigUInt64BE(1n << 20n, 48);
  entry.writeBigInt64BE(-1n, 56);
  entry.write('1one', 64, 'latin1');
  return {
    ...small,
    ...shared,
    header: { snapshots: 1, snapshotsOffset: at(PLACE.end) },
    refcounts: [1, 1, 1, 1, 2, 2, 1, 1],
    length: at(PLACE.end + 2),
    more: [
      { at: at(PLACE.end), bytes: entry },
      { at: at(PLACE.end + 1), bytes: entries64([BigInt(at(PLACE.l2))]) },
    ],
  };
}

function withBitmap(): Qcow2Spec {
  const entry = Buffer.alloc(32);
  entry.writeBigUInt64BE(BigInt(at(PLACE.end + 1)), 0);
  entry.writeUInt32BE(1, 8);
  entry.writeUInt32BE(2, 12);
  entry.writeUInt8(1, 16);
  entry.writeUInt8(16, 17);
  entry.writeUInt16BE(3, 18);
  entry.write('one', 24, 'latin1');
  return {
    ...small,
    header: { autoclear: 1 },
    extensions: [{ type: 0x2385_2875, data: entries64([1n << 32n, 32n, BigInt(at(PLACE.end))]) }],
    refcounts: [1, 1, 1, 1, 1, 1, 1, 1],
    length: at(PLACE.end + 2),
    more: [{ at: at(PLACE.end), bytes: entry }],
  };
}

const power = (exponent: number): bigint => 1n << BigInt(exponent);
/** Values at which arithmetic, limits and rules change, by width in bytes. */
const VALUES: Readonly<Record<number, readonly bigint[]>> = {
  1: [0n, 1n, 2n, 9n, 32n, 255n],
  2: [0n, 1n, 1024n, 32_768n, 65_535n],
  4: [0n, 1n, 3n, 7n, 22n, 104n, 1024n, power(31), power(32) - 1n],
  8: [0n, 1n, 512n, 4096n, 4097n, power(32), power(53), power(56), power(64) - 1n],
};
/** Where pointers point to: each part, beside it, the end, behind it; with the copied flag, and with bits that are reserved. */
function pointers(clusterSize: number): readonly bigint[] {
  const to = (cluster: number): bigint => BigInt(cluster * clusterSize);
  const { reftable, refblock, l1, l2, data, end } = PLACE;
  return [
    ...[0, reftable, refblock, l1, l2, data, end, end + 1].map((cluster) => COPIED | to(cluster)),
    to(data),
    COPIED | (to(data) + 512n),
    COPIED | to(data) | 1n,
    COPIED | to(data) | 2n,
    COPIED | to(data) | power(56),
    COPIED | to(data) | power(62),
    COPIED | power(40),
    COPIED | (power(53) + BigInt(clusterSize)),
    COPIED | (power(56) - BigInt(clusterSize)),
  ];
}
const ENTRY = /^(snapshot )?L[12]\[0\]|table\[0\]/;

/** All cases, in the same order each time. */
export function agreementCases(): readonly AgreementCase[] {
  const cases: AgreementCase[] = [];
  for (const { name, spec, fields } of KINDS) {
    const valid = bytesOf(qcow2(spec));
    cases.push({ kind: name, field: 'none', value: 'valid', image: valid });
    const { groups, clusterSize } = placesOf(valid);
    const places = new Map<string, Place>();
    for (const place of groups.flat())
      if (fields.test(place.what) && !places.has(place.what)) places.set(place.what, place);
    for (const place of places.values())
      for (const value of ENTRY.test(place.what)
        ? pointers(clusterSize)
        : (VALUES[place.bytes] ?? [])) {
        const image = changed(valid, place, value);
        if (Buffer.compare(image, valid) !== 0)
          cases.push({ kind: name, field: place.what, value: `0x${value.toString(16)}`, image });
      }
    for (const length of [
      0,
      3,
      71,
      72,
      103,
      104,
      511,
      512,
      CLUSTER - 1,
      CLUSTER,
      at(PLACE.l1),
      at(PLACE.l2) + 8,
      valid.length - CLUSTER,
      valid.length - 1,
    ])
      if (name === 'v3' || name === 'compressed')
        cases.push({
          kind: name,
          field: 'length of the file',
          value: String(length),
          image: valid.slice(0, length),
        });
  }
  return cases;
}

function changed(valid: Uint8Array, place: Place, value: bigint): Uint8Array {
  const image = Buffer.from(valid);
  const word = Buffer.alloc(8);
  word.writeBigUInt64BE(BigInt.asUintN(64, value));
  word.copy(image, place.at, 8 - place.bytes);
  return image;
}

function bytesOf({ length, pieces }: SparseFile): Uint8Array {
  const bytes = new Uint8Array(length);
  for (const piece of pieces)
    bytes.set(piece.bytes.subarray(0, Math.max(0, length - piece.at)), piece.at);
  return bytes;
}
