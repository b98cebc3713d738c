import { perTier, seededRandom } from '@downfold/compliance';
import type { Extent } from '@downfold/image';
import { memoryBackend } from '@downfold/storage-memory';
import { byteLength } from '@downfold/units';
import { expect, it } from 'vitest';
import { scanTable } from '../src/extents.ts';
import { qcow2 } from '../src/index.ts';
import { cleanTable } from '../src/l2-table.ts';
import { openState } from '../src/open.ts';
import type { Qcow2State } from '../src/state.ts';
import { tableScanner } from '../src/table-scanner.ts';
import { wordsOf } from '../src/words.ts';
import { seeds } from './support.ts';

const TABLE = 3;
const ZERO_FLAG = 1n;
const COPIED = 1n << 63n;
const COMPRESSED = 1n << 62n;

/** An image that nothing but the scan reads, as if its file had 4096 clusters. */
async function stateOf(clusterSize: number, version: number): Promise<Qcow2State> {
  const backend = memoryBackend();
  const storage = await backend.create('/image', { secret: false });
  const wanted = { virtualSize: byteLength(1 << 20), clusterSize: byteLength(clusterSize) };
  await (await qcow2.create(storage, wanted))[Symbol.asyncDispose]();
  const state = await openState(await backend.open('/image', 'read'), { mode: 'read' });
  state.header = { ...state.header, version };
  state.fileEnd = 4096 * clusterSize;
  return state;
}

/** What the quick and the plain way say of a table: its extents, or that it is refused. */
function bothWays(
  state: Qcow2State,
  entries: readonly bigint[],
  from: number,
  to: number,
): readonly [quick: readonly Extent[] | null, plain: readonly Extent[] | null] {
  const scanner = tableScanner(state);
  if (scanner === null) throw new Error('no WebAssembly here');
  const view = new DataView(scanner.bytes.buffer);
  entries.forEach((entry, index) => {
    view.setBigUint64(index * 8, entry);
  });
  const table = cleanTable(TABLE, 0, wordsOf(scanner.bytes));
  const quick = scanner.scan(TABLE * state.geometry.l2Reach, from, to);
  let plain: readonly Extent[] | null = null;
  try {
    plain = [...scanTable(state, table, from, to)];
  } catch {
    // it says what is wrong; the quick way only that something is
  }
  return [quick === null ? null : [...quick], plain];
}

/** Entries of a table in long and short runs; when it is `broken`, one breaks a rule or refers to where no data can be. */
function randomEntries(
  { geometry: { clusterSize, l2Entries }, header, fileEnd }: Qcow2State,
  random: () => number,
  broken: boolean,
): readonly bigint[] {
  const below = (limit: number): number => Math.floor(random() * limit);
  const { version } = header;
  // whatever the header and tables take is in front
  const free = 64;
  let host = free;
  const entry = (): bigint => {
    if (below(3) > 0) host = Math.min(4000, host + 1);
    else host = free + below(3000);
    const place = BigInt(host) * BigInt(clusterSize);
    const copied = below(8) === 0 ? 0n : COPIED;
    switch (below(12)) {
      case 0:
      case 1:
        return 0n;
      case 2:
        return version === 2 ? 0n : ZERO_FLAG;
      case 3:
        return version === 2 ? place | copied : place | copied | ZERO_FLAG;
      case 4:
        return COMPRESSED | BigInt(below(1 << 20));
      default:
        return place | copied;
    }
  };
  const entries = Array.from({ length: l2Entries }, entry);
  if (broken) {
    const wrong = [
      1n << BigInt(56 + below(6)),
      2n << BigInt(below(8)),
      (1n << BigInt(53 + below(3))) | BigInt(clusterSize),
      BigInt(fileEnd) + BigInt(below(3) * clusterSize),
      BigInt(below(4) * clusterSize) | COPIED,
      BigInt(header.l1TableOffset) | COPIED,
      BigInt(header.refcountTableOffset) | COPIED,
      ZERO_FLAG | COPIED,
      BigInt(free * clusterSize + 512 * below(8)),
    ];
    entries[below(l2Entries)] = wrong[below(wrong.length)] as bigint;
  }
  return entries;
}

it.each(seeds(perTier({ quick: 60, ci: 400, long: 4000 })))(
  'tables are scanned alike in WebAssembly and in TypeScript, seed %i',
  async (seed) => {
    const random = seededRandom(seed);
    const below = (limit: number): number => Math.floor(random() * limit);
    const clusterSize = 512 << below(4);
    const version = below(3) === 0 ? 2 : 3;
    const state = await stateOf(clusterSize, version);
    const { l2Reach } = state.geometry;
    const entries = randomEntries(state, random, seed % 2 === 0);
    const base = TABLE * l2Reach;
    for (let round = 0; round < 8; round++) {
      const from = round === 0 ? base : base + below(l2Reach);
      const to = round === 0 ? base + l2Reach : from + 1 + below(base + l2Reach - from);
      const [quick, plain] = bothWays(state, entries, from, to);
      expect(quick, `[${from}, ${to})`).toEqual(plain);
    }
  },
);
