import { hostOffset } from '@downfold/units';
import { applyReleases } from './allocate.ts';
import { BARRIER } from './barriers.ts';
import { patchHeader } from './header-sector.ts';
import { mutate } from './mutate.ts';
import { assertNoOverlap } from './overlap.ts';
import type { MetadataKind, Qcow2State, Release, Writer } from './state.ts';
import { SECTOR_BYTES } from './structures.ts';
import { bytesOf } from './words.ts';

/** A piece of metadata as it was when the flush was called. */
interface Piece {
  readonly kind: MetadataKind;
  readonly offset: number;
  readonly bytes: Uint8Array;
}

/** Everything one flush makes durable: copies, so that writes may go on changing the tables meanwhile. A superset of what was asked. */
interface Sealed {
  readonly data: boolean;
  /** Refcount blocks, new L2 tables, a moved refcount table: nothing durable points to what they add. */
  readonly content: readonly Piece[];
  readonly refcountTable: readonly Piece[];
  readonly moved: { readonly offset: number; readonly clusters: number } | null;
  /** Existing L2 tables and L1 entries. */
  readonly mapping: readonly Piece[];
  readonly releases: readonly Release[];
}

/** Bytes of dirty tables above which writes wait for a flush of their own. */
export const DIRTY_LIMIT_BYTES: number = 16 << 20;

/**
 * Makes everything written before the call durable, in the order of rules W1 to W6, with as few barriers as that needs: one for
 * data in place, two when clusters were allocated, one or two more when clusters are released or refcount blocks are new.
 */
export function flushImage(state: Qcow2State, writer: Writer): Promise<void> {
  // sealed when its turn comes: an earlier flush lowers refcounts at its end, and a copy made before would undo that
  const turn = writer.flushing.then(() => writeSealed(state, writer, seal(state, writer)));
  writer.flushing = turn.catch(() => {
    writer.poisoned = true;
  });
  return turn;
}

async function writeSealed(state: Qcow2State, writer: Writer, sealed: Sealed): Promise<void> {
  const { storage } = state;
  await writePieces(state, sealed.content);
  if (sealed.content.length > 0) await storage.flush(BARRIER.content);
  else if (sealed.data)
    await storage.flush(sealed.mapping.length > 0 ? BARRIER.content : BARRIER.data);
  if (sealed.moved !== null) await switchRefcountTable(state, writer, sealed.moved);
  else if (sealed.refcountTable.length > 0) {
    await writePieces(state, sealed.refcountTable);
    await storage.flush(BARRIER.refcountTable);
  }
  if (sealed.mapping.length > 0) {
    await writePieces(state, sealed.mapping);
    await storage.flush(BARRIER.mapping);
  }
  if (sealed.releases.length > 0) await releaseClusters(state, writer, sealed.releases);
}

/** W5: lowers refcounts, makes that durable, then gives host space back; only now may the clusters be used again. */
async function releaseClusters(
  state: Qcow2State,
  writer: Writer,
  releases: readonly Release[],
): Promise<void> {
  const { free, blocks } = await mutate(writer, async () => {
    const free = await applyReleases(state, writer, releases);
    return { free, blocks: sealBlocks(writer) };
  });
  await writePieces(state, blocks);
  await state.storage.flush(BARRIER.release);
  const { clusterSize } = state.geometry;
  await mutate(writer, async () => {
    for (const at of free) {
      if (state.storage.supports.discard)
        await state.storage.discard({ offset: hostOffset(at), length: clusterSize as never });
      writer.nextFree = Math.min(writer.nextFree, at / clusterSize);
    }
  });
}

async function switchRefcountTable(
  state: Qcow2State,
  writer: Writer,
  moved: { readonly offset: number; readonly clusters: number },
): Promise<void> {
  const old = {
    offset: state.header.refcountTableOffset,
    clusters: state.header.refcountTableClusters,
  };
  await patchHeader(
    state,
    { refcountTableOffset: moved.offset, refcountTableClusters: moved.clusters },
    BARRIER.refcountTableMoved,
  );
  writer.releases.push(old);
}

function seal(state: Qcow2State, writer: Writer): Sealed {
  const { refcounts } = writer;
  const content = sealBlocks(writer);
  const mapping: Piece[] = [];
  for (const table of state.l2.dirty()) {
    if (table.fresh)
      content.push({ kind: 'L2 table', offset: table.offset, bytes: bytesOf(table.words) });
    else
      mapping.push(
        sealWords('L2 table', table.offset, table.words, table.dirtyFrom, table.dirtyTo),
      );
    table.fresh = false;
    table.dirtyFrom = table.words.length;
    table.dirtyTo = 0;
  }
  if (refcounts.moved !== null)
    content.push({
      kind: 'refcount table',
      offset: refcounts.moved.offset,
      bytes: bytesOf(refcounts.table),
    });
  const tablePieces =
    refcounts.moved === null
      ? sealEntries(
          'refcount table',
          state.header.refcountTableOffset,
          refcounts.table,
          refcounts.changed,
        )
      : [];
  mapping.push(...sealEntries('L1 table', state.header.l1TableOffset, state.l1, writer.l1Changed));
  const sealed: Sealed = {
    data: writer.dataDirty,
    content,
    refcountTable: tablePieces,
    moved: refcounts.moved,
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

function sealBlocks(writer: Writer): Piece[] {
  const pieces: Piece[] = [];
  for (const block of writer.refcounts.blocks.values()) {
    if (!block.dirty) continue;
    block.dirty = false;
    pieces.push({ kind: 'refcount block', offset: block.offset, bytes: block.bytes.slice() });
  }
  return pieces;
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

/** Bytes of tables and refcount blocks that wait for a flush. */
export function dirtyBytes(state: Qcow2State, writer: Writer): number {
  let blocks = 0;
  for (const block of writer.refcounts.blocks.values()) if (block.dirty) blocks++;
  return (state.l2.dirtyCount() + blocks) * state.geometry.clusterSize;
}
