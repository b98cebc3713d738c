import { isFull } from '@downfold/storage';
import { byteLength, hostOffset } from '@downfold/units';
import { BARRIER } from './barriers.ts';
import { patchHeader } from './header-sector.ts';
import type { L2Table } from './l2-table.ts';
import { assertNoOverlap } from './overlap.ts';
import { applyReleases } from './refcounts.ts';
import { asStored } from './stage-entries.ts';
import type { MetadataKind, Qcow2State, RefcountBlock, Release, Writer } from './state.ts';
import { SECTOR_BYTES } from './structures.ts';
import { bytesOf } from './words.ts';
import { inTurn, writerOf } from './writer.ts';

/** A piece of metadata as it was when the flush was called. */
interface Piece {
  readonly kind: MetadataKind;
  readonly offset: number;
  readonly bytes: Uint8Array;
}

/** Everything one flush makes durable: copies, so that writes may go on changing the tables meanwhile. A superset of what was asked. */
interface Sealed {
  readonly data: boolean;
  /** What it was made of. */
  readonly tables: readonly SealedTable[];
  readonly blocks: readonly RefcountBlock[];
  readonly l1Changed: ReadonlySet<number>;
  readonly refcountsChanged: ReadonlySet<number>;
  /** Refcount blocks, new L2 tables, a moved refcount table: nothing durable points to what they add. */
  readonly content: readonly Piece[];
  readonly refcountTable: readonly Piece[];
  readonly moved: { readonly offset: number; readonly clusters: number } | null;
  /** Existing L2 tables and L1 entries. */
  readonly mapping: readonly Piece[];
  readonly releases: readonly Release[];
}

/** An L2 table, and what of it was not in the file. */
type SealedTable = Pick<L2Table, 'fresh' | 'dirtyFrom' | 'dirtyTo'> & { readonly table: L2Table };

/** Bytes of changed tables above which writes wait for a flush of their own. */
const DIRTY_LIMIT_BYTES = 16 << 20;

/**
 * Makes everything written before the call durable, in the order of rules W1 to W6, with as few barriers as that needs: one for
 * data in place, two when clusters were allocated, one or two more when clusters are released or refcount blocks are new.
 * When it fails the image takes no more writes, unless the host had no room for what nothing points to yet, before the first barrier: the next
 * flush tries again, with all of it.
 */
export function flushImage(state: Qcow2State): Promise<void> {
  return inTurn(state, 'flush', async () => {
    const writer = writerOf(state);
    // sealed when its turn comes: an earlier flush lowers refcounts at its end, and a copy made before would undo that
    const sealed = seal(state, writer);
    let isWritten = false;
    try {
      await writePieces(state, sealed.content);
      isWritten = true;
      await writeSealed(state, writer, sealed);
    } catch (cause) {
      if (isWritten || !isFull(cause)) writer.failure ??= cause;
      else unseal(state, writer, sealed);
      throw cause;
    }
  });
}

/** The rest of a flush, once its content is written. */
async function writeSealed(state: Qcow2State, writer: Writer, sealed: Sealed): Promise<void> {
  const { storage } = state;
  const { refcountTable, moved, mapping } = sealed;
  if (sealed.data && state.external !== null)
    await state.external.flush(mapping.length > 0 ? BARRIER.content : BARRIER.data);
  if (sealed.content.length > 0) await storage.flush(BARRIER.content);
  else if (sealed.data) await storage.flush(mapping.length > 0 ? BARRIER.content : BARRIER.data);
  let releases = sealed.releases;
  if (moved !== null) releases = [...releases, await switchRefcountTable(state, moved)];
  else if (refcountTable.length > 0) {
    await writePieces(state, refcountTable);
    await storage.flush(BARRIER.refcountTable);
  }
  if (mapping.length > 0) {
    await writePieces(state, mapping);
    await storage.flush(BARRIER.mapping);
  }
  state.l2.settle();
  if (releases.length > 0) await releaseClusters(state, writer, releases);
  writer.refcounts.blocks.settle();
}

/** W5: lowers refcounts, makes that durable, then gives host space back; only now may the clusters be used again. */
async function releaseClusters(
  state: Qcow2State,
  writer: Writer,
  releases: readonly Release[],
): Promise<void> {
  const holding = await applyReleases(state, writer.refcounts, releases);
  await writePieces(state, writer.refcounts.blocks.seal().map(blockPiece));
  await state.storage.flush(BARRIER.release);
  // those that began before the mapping changed may still be on their way to the clusters
  await Promise.allSettled([...writer.reads]);
  for (const gone of writer.beforeReuse) await gone();
  for (const block of holding) await freeHeld(state, writer, block);
}

async function freeHeld(state: Qcow2State, writer: Writer, block: RefcountBlock): Promise<void> {
  const { clusterSize, refcountsPerBlock } = state.geometry;
  const held = block.held as Uint8Array;
  const base = block.index * refcountsPerBlock;
  for (let first = held.indexOf(1), end = 0; first >= 0; first = held.indexOf(1, end)) {
    end = held.indexOf(0, first);
    if (end < 0) end = refcountsPerBlock;
    if (state.storage.supports.discard)
      await state.storage.discard({
        offset: hostOffset((base + first) * clusterSize),
        length: byteLength((end - first) * clusterSize),
      });
    writer.nextFree = Math.min(writer.nextFree, base + first);
  }
  block.held = null;
}

/** Resolves with the place of the old table, which nothing refers to any more. */
async function switchRefcountTable(
  state: Qcow2State,
  moved: { readonly offset: number; readonly clusters: number },
): Promise<Release> {
  const { refcountTableOffset: offset, refcountTableClusters: clusters } = state.header;
  await patchHeader(
    state,
    { refcountTableOffset: moved.offset, refcountTableClusters: moved.clusters },
    BARRIER.refcountTableMoved,
  );
  return { offset, clusters, references: 1 };
}

function seal(state: Qcow2State, writer: Writer): Sealed {
  const { refcounts } = writer;
  const blocks = refcounts.blocks.seal();
  const content = blocks.map(blockPiece);
  const mapping: Piece[] = [];
  const tables: SealedTable[] = [];
  const { entryWords } = state.geometry;
  for (const table of state.l2.seal()) {
    const { offset, fresh, dirtyFrom, dirtyTo } = table;
    tables.push({ table, fresh, dirtyFrom, dirtyTo });
    const words = asStored(table.words, table.lower, entryWords);
    if (fresh) content.push({ kind: 'L2 table', offset, bytes: bytesOf(words) });
    else mapping.push(sealWords('L2 table', offset, words, dirtyFrom, dirtyTo));
    table.fresh = false;
    table.dirtyFrom = words.length;
    table.dirtyTo = 0;
  }
  const { moved, table } = refcounts;
  if (moved !== null)
    content.push({ kind: 'refcount table', offset: moved.offset, bytes: bytesOf(table) });
  const { refcountTableOffset, l1TableOffset } = state.header;
  const l1 = asStored(state.l1, state.stagedOn?.l1 ?? null, 2);
  mapping.push(...sealEntries('L1 table', l1TableOffset, l1, writer.l1Changed));
  const sealed: Sealed = {
    data: writer.dataDirty,
    tables,
    blocks,
    l1Changed: new Set(writer.l1Changed),
    refcountsChanged: new Set(refcounts.changed),
    content,
    refcountTable:
      moved === null
        ? sealEntries('refcount table', refcountTableOffset, table, refcounts.changed)
        : [],
    moved,
    mapping,
    releases: writer.releases,
  };
  writer.dataDirty = false;
  writer.releases = [];
  writer.l1Changed.clear();
  refcounts.changed.clear();
  refcounts.moved = null;
  return sealed;
}

/** Of a seal nothing was made durable: all of it is to be written by the next flush. What changed since stays changed. */
function unseal(state: Qcow2State, writer: Writer, sealed: Sealed): void {
  const { refcounts } = writer;
  for (const { table, fresh, dirtyFrom, dirtyTo } of sealed.tables) {
    // another one took its place
    if (state.l2.get(table.index) !== table) continue;
    table.fresh ||= fresh;
    table.dirtyFrom = Math.min(table.dirtyFrom, dirtyFrom);
    table.dirtyTo = Math.max(table.dirtyTo, dirtyTo);
    state.l2.touch(table);
  }
  for (const block of sealed.blocks)
    if (refcounts.blocks.get(block.index) === block) refcounts.blocks.touch(block);
  for (const entry of sealed.l1Changed) writer.l1Changed.add(entry);
  for (const entry of sealed.refcountsChanged) refcounts.changed.add(entry);
  writer.dataDirty ||= sealed.data;
  writer.releases = [...sealed.releases, ...writer.releases];
  const { moved } = sealed;
  if (moved === null) return;
  // one that moved again meanwhile does not go there any more
  if (refcounts.moved === null) refcounts.moved = moved;
  else writer.releases.push({ ...moved, references: 1 });
}

function blockPiece({ offset, bytes }: RefcountBlock): Piece {
  return { kind: 'refcount block', offset, bytes: bytes.slice() };
}

/** The sectors around the changed entries of a table. */
function sealEntries(
  kind: MetadataKind,
  offset: number,
  words: Uint32Array,
  changed: ReadonlySet<number>,
): Piece[] {
  const perSector = SECTOR_BYTES / 4;
  const sectors = [...new Set([...changed].map((entry) => Math.floor((2 * entry) / perSector)))];
  return sectors
    .sort((a, b) => a - b)
    .map((sector) => sealWords(kind, offset, words, sector * perSector, (sector + 1) * perSector));
}

/** Words [from, to) of a table, widened to whole sectors. */
function sealWords(
  kind: MetadataKind,
  offset: number,
  words: Uint32Array,
  from: number,
  to: number,
): Piece {
  const perSector = SECTOR_BYTES / 4;
  const start = from - (from % perSector);
  const end = Math.min(words.length, Math.ceil(to / perSector) * perSector);
  return { kind, offset: offset + start * 4, bytes: bytesOf(words.subarray(start, end)) };
}

async function writePieces(state: Qcow2State, pieces: readonly Piece[]): Promise<void> {
  for (const { kind, offset, bytes } of pieces) {
    await assertNoOverlap(state, offset, bytes.length, kind);
    await state.storage.write(hostOffset(offset), bytes, { what: kind });
  }
}

/** Bytes of memory that one of the clusters takes which wait to be let go. */
const RELEASE_BYTES = 64;

/** Whether so many tables, refcount blocks and released clusters, and `more` tables, stay in memory until a flush that writes should wait for one. */
export function isMuchDirty(state: Qcow2State, more = 0): boolean {
  const { refcounts, releases } = writerOf(state);
  const pinned = (state.l2.pinned + refcounts.blocks.pinned + more) * state.geometry.clusterSize;
  return pinned + releases.length * RELEASE_BYTES > DIRTY_LIMIT_BYTES;
}
