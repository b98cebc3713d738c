import { applyChange, pieceCount, piecesOf } from './changes.ts';
import type { Durability } from './durability.ts';
import type { MemoryDisk } from './memory-disk.ts';
import type { Change } from './observer.ts';

/** How many states of one moment are tried. */
export interface PowerCutOptions {
  readonly exhaustive: number;
  readonly samples: number;
  readonly tear: boolean;
  /** Uniform in [0, 1). */
  random(): number;
}

/** A disk as a power cut may leave it; `kept` says which pending changes it holds. */
interface PowerCut {
  readonly disk: MemoryDisk;
  readonly kept: string;
}

type PowerCuts = Generator<PowerCut, void, undefined>;

/** The states that a power cut may leave at one moment: all of them, or a choice when there are too many. */
export function* powerCuts(moment: Durability, options: PowerCutOptions): PowerCuts {
  const changes = moment.pending.map(({ change }) => change);
  const count = options.tear
    ? changes.reduce((sum, change) => sum + pieceCount(change), 0)
    : changes.length;
  if (count > options.exhaustive) yield* someSubsets(moment.durable, changes, options);
  else yield* everySubset(moment.durable, options.tear ? changes.flatMap(piecesOf) : changes);
}

/** Counts through all subsets. Neighbours share the disk with the changes that both begin with, so that each costs about two changes. */
function* everySubset(durable: MemoryDisk, changes: readonly Change[]): PowerCuts {
  const { length } = changes;
  const isKept = (subset: number, index: number): boolean =>
    ((subset >>> (length - 1 - index)) & 1) === 1;
  const prefixes: MemoryDisk[] = [durable];
  for (let subset = 0; subset < 2 ** length; subset++) {
    // the changes from here on are kept otherwise than in the subset before
    const first = subset === 0 ? 0 : length - 1 - Math.log2(subset & -subset);
    const kept: number[] = [];
    for (let index = 0; index < length; index++) {
      if (isKept(subset, index)) kept.push(index);
      if (index < first) continue;
      const before = prefixes[index] as MemoryDisk;
      prefixes[index + 1] = isKept(subset, index)
        ? withChange(before, changes[index] as Change)
        : before;
    }
    yield { disk: (prefixes[length] as MemoryDisk).copy(), kept: kept.join(',') };
  }
}

/** None, all, each alone, each missing, every prefix; torn, each cut short and each with random pieces; random subsets. */
function* someSubsets(
  durable: MemoryDisk,
  changes: readonly Change[],
  options: PowerCutOptions,
): PowerCuts {
  yield { disk: durable.copy(), kept: 'none' };
  let prefix = durable;
  for (const [index, change] of changes.entries()) {
    yield { disk: withChange(durable, change), kept: `only ${index}` };
    const missing = prefix.copy();
    for (const later of changes.slice(index + 1)) applyChange(missing, later);
    yield { disk: missing, kept: `all but ${index}` };
    if (options.tear) yield* tornStates(prefix, change, index, options);
    prefix = withChange(prefix, change);
    yield { disk: prefix.copy(), kept: `up to ${index}` };
  }
  for (let sample = 0; sample < options.samples; sample++)
    yield { disk: randomSubset(durable, changes, options), kept: `random ${sample}` };
}

/** All changes before one, and a part of that one: its first pieces, and any pieces. */
function* tornStates(
  before: MemoryDisk,
  change: Change,
  index: number,
  options: PowerCutOptions,
): PowerCuts {
  const pieces = piecesOf(change);
  if (pieces.length === 1) return;
  const cut = 1 + Math.floor(options.random() * (pieces.length - 1));
  const short = before.copy();
  for (const piece of pieces.slice(0, cut)) applyChange(short, piece);
  yield { disk: short, kept: `up to ${cut} of ${pieces.length} pieces of ${index}` };
  const some = before.copy();
  for (const piece of pieces) if (options.random() < 0.5) applyChange(some, piece);
  yield { disk: some, kept: `up to random pieces of ${index}` };
}

function randomSubset(
  durable: MemoryDisk,
  changes: readonly Change[],
  { tear, random }: PowerCutOptions,
): MemoryDisk {
  const disk = durable.copy();
  for (const change of changes) {
    if (random() < 0.5) continue;
    if (!tear || random() < 0.5) applyChange(disk, change);
    else for (const piece of piecesOf(change)) if (random() < 0.5) applyChange(disk, piece);
  }
  return disk;
}

function withChange(before: MemoryDisk, change: Change): MemoryDisk {
  const disk = before.copy();
  applyChange(disk, change);
  return disk;
}
