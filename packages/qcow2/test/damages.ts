import { caseContext } from '@downfold/compliance';
import { refcountAt, setRefcount } from '../src/refcount-codec.ts';
import {
  ENTRY_BYTES,
  entryOffset,
  HIGH_COMPRESSED,
  HIGH_COPIED,
  INCOMPATIBLE,
  INCOMPATIBLE_AT,
} from '../src/structures.ts';
import type { Craft } from './craft.ts';

/** Draws an integer below `limit`. */
type Draw = (limit: number) => number;

/** Damages an image; false: there is nothing in it to damage so. */
export type Damage = (craft: Craft, draw: Draw) => boolean;

/** Bytes of the refcount table entries in use. */
function blockEntries(craft: Craft): number[] {
  const { refcountTableOffset, refcountTableClusters } = craft.header;
  const count = (refcountTableClusters * craft.geometry.clusterSize) / ENTRY_BYTES;
  return Array.from(
    { length: count },
    (_, index) => refcountTableOffset + ENTRY_BYTES * index,
  ).filter((at) => craft.word(at + 4) !== 0);
}

const pick = <T>(list: readonly T[], draw: Draw): T => list[draw(list.length)] as T;

/** Changes the refcount of a cluster of the file. */
function changeRefcount(craft: Craft, draw: Draw, change: (count: number) => number): boolean {
  const { clusterSize, refcountBits, refcountsPerBlock } = craft.geometry;
  const block = craft.word(pick(blockEntries(craft), draw) + 4);
  const bytes = craft.bytes(block, clusterSize);
  const used = Array.from({ length: Math.min(refcountsPerBlock, 4096) }, (_, at) => at).filter(
    (at) => refcountAt(bytes, at, refcountBits) > 0,
  );
  if (used.length === 0) return false;
  const at = pick(used, draw);
  setRefcount(bytes, at, refcountBits, change(refcountAt(bytes, at, refcountBits)));
  craft.set(block, bytes);
  return true;
}

/** Bytes of the L2 entries of guest clusters that have plain data. */
const dataEntries = (craft: Craft): number[] =>
  craft
    .mapped()
    .map((cluster) => craft.entryAt(cluster))
    .filter((at) => (craft.word(at) & HIGH_COMPRESSED) === 0);

/** Bytes of the L1 entries in use. */
function l1Entries(craft: Craft): number[] {
  const { l1Size, l1TableOffset } = craft.header;
  return Array.from({ length: l1Size }, (_, index) => l1TableOffset + ENTRY_BYTES * index).filter(
    (at) => craft.word(at + 4) !== 0,
  );
}

function setMark(craft: Craft, bit: number): boolean {
  if (craft.header.version < 3) return false;
  craft.setWord(INCOMPATIBLE_AT + 4, craft.word(INCOMPATIBLE_AT + 4) | bit);
  return true;
}

/** Lets an entry say what another one of the list says. */
function alias(craft: Craft, entries: readonly number[], draw: Draw): boolean {
  if (entries.length < 2) return false;
  const [to, from] = [pick(entries, draw), pick(entries, draw)];
  craft.set(to, craft.bytes(from, ENTRY_BYTES));
  return to !== from;
}

function flipFlag(craft: Craft, entries: readonly number[], draw: Draw): boolean {
  if (entries.length === 0) return false;
  const at = pick(entries, draw);
  craft.setWord(at, (craft.word(at) ^ HIGH_COPIED) >>> 0);
  return true;
}

/** What goes wrong in images, one kind at a time. */
export const damages: Readonly<Record<string, Damage>> = {
  'a refcount is zero': (craft, draw) => changeRefcount(craft, draw, () => 0),
  'a bit of a refcount is flipped': (craft, draw) =>
    changeRefcount(craft, draw, (count) =>
      Number(BigInt(count) ^ (1n << BigInt(draw(Math.min(craft.geometry.refcountBits, 40))))),
    ),
  'a cluster is leaked': (craft, draw) => {
    if (!craft.hasRoom(3)) return false;
    craft.append(new Uint8Array(1 + draw(3 * craft.geometry.clusterSize)).fill(0x11));
    return true;
  },
  'a copied flag of an L2 entry is flipped': (craft, draw) =>
    flipFlag(craft, dataEntries(craft), draw),
  'a copied flag of an L1 entry is flipped': (craft, draw) =>
    flipFlag(craft, l1Entries(craft), draw),
  'two L2 entries refer to one cluster': (craft, draw) => alias(craft, dataEntries(craft), draw),
  'two L1 entries refer to one table': (craft, draw) => alias(craft, l1Entries(craft), draw),
  'an L2 entry is gone': (craft, draw) => {
    const entries = dataEntries(craft);
    if (entries.length === 0) return false;
    craft.set(pick(entries, draw), new Uint8Array(craft.geometry.entryWords * 4));
    return true;
  },
  'a refcount table entry is zero': (craft, draw) => {
    craft.set(pick(blockEntries(craft), draw), new Uint8Array(ENTRY_BYTES));
    return true;
  },
  'a refcount table entry points past the end': (craft, draw) => {
    craft.setOffset(pick(blockEntries(craft), draw), craft.geometry.clusterSize * (5000 + draw(9)));
    return true;
  },
  'a refcount table entry is not on a cluster': (craft, draw) => {
    const at = pick(blockEntries(craft), draw) + 4;
    craft.setWord(at, craft.word(at) | (craft.geometry.clusterSize > 512 ? 512 : 256));
    return true;
  },
  'a refcount table entry points to an L2 table': (craft, draw) => {
    const tables = l1Entries(craft);
    if (tables.length === 0) return false;
    const table = pick(tables, draw);
    craft.setOffset(
      pick(blockEntries(craft), draw),
      entryOffset(craft.word(table), craft.word(table + 4)),
    );
    return true;
  },
  'a refcount table entry points to data': (craft, draw) => {
    const mapped = craft.mapped();
    if (mapped.length === 0) return false;
    craft.setOffset(pick(blockEntries(craft), draw), craft.hostOf(pick(mapped, draw)) || 512);
    return true;
  },
  'an L2 entry points to a refcount block': (craft, draw) => {
    const entries = dataEntries(craft);
    if (entries.length === 0) return false;
    craft.set(pick(entries, draw), craft.bytes(pick(blockEntries(craft), draw), ENTRY_BYTES));
    return true;
  },
  'a refcount block holds noise': (craft, draw) => {
    const block = craft.word(pick(blockEntries(craft), draw) + 4);
    craft.set(block, caseContext(draw(1000)).bytes(Math.min(512, craft.geometry.clusterSize)));
    return true;
  },
  'the header says that refcounts lie at an L1 table': (craft) => {
    craft.patch({ refcountTableOffset: craft.header.l1TableOffset });
    return true;
  },
  'the refcount table lies past the end': (craft, draw) => {
    const { clusterSize } = craft.geometry;
    const end = Math.ceil(craft.fileLength / clusterSize);
    craft.patch({ refcountTableOffset: (end + draw(draw(2) === 0 ? 6 : 40)) * clusterSize });
    return true;
  },
  'the snapshots are gone': (craft) => {
    if (craft.header.nbSnapshots === 0) return false;
    craft.patch({ nbSnapshots: 0 });
    return true;
  },
  'marked dirty': (craft) => setMark(craft, INCOMPATIBLE.dirty),
  'marked corrupt': (craft) => setMark(craft, INCOMPATIBLE.corrupt),
};
