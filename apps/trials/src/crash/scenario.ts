import { type Draw, draw } from '../tools/draw.ts';

/** The strategies that are explored, in the order of the table. */
export const STRATEGIES = [
  'copy-down',
  'depth-first',
  'preserve',
  'staged',
  'stream',
  'rebase',
] as const;
export type StrategyName = (typeof STRATEGIES)[number];

/** Unit of content and sizes of a scenario, bytes; also the smallest cluster and the sector that a torn write is made of. */
export const SECTOR_BYTES = 512;

/**
 * Kinds of scenarios by how large their parts are. `small` makes cheap states and many of them; the others reach what small
 * ones cannot: names past the first sector, subclusters, an L1 table that moves, refcount blocks and a refcount table that grow, a
 * cluster longer than the disk.
 */
export type Kind =
  | 'small'
  | 'names'
  | 'refcounts'
  | 'subclusters'
  | 'large'
  | 'huge'
  | 'long'
  | 'dense';

/** With how many of a thousand seeds are of each. */
const KINDS: readonly (readonly [Kind, number])[] = [
  ['small', 600],
  ['names', 60],
  ['refcounts', 140],
  ['subclusters', 80],
  ['large', 80],
  ['huge', 10],
  ['long', 30],
  ['dense', 10],
];

/** One image of a scenario: what it is, and who is below it. Its content is drawn when it is built. */
export interface ImageSpec {
  readonly name: string;
  readonly format: 'qcow2' | 'raw';
  /** Name of its backing file. */
  readonly backing: string | null;
  /** Virtual size, bytes. */
  readonly size: number;
  readonly clusterSize: number;
  readonly version: 2 | 3;
  readonly extendedL2: boolean;
  readonly refcountBits: number;
  /** Share of its clusters that it decides. */
  readonly density: number;
  /** What other programs put into images, and Downfold must live with. */
  readonly snapshot: boolean;
  readonly compressed: boolean;
  /** An autoclear bit that Downfold does not know. */
  readonly unknownAutoclear: boolean;
}

/** What is asked of the engine. Names are of images. */
interface Request {
  readonly file: string;
  readonly base: string | null;
  readonly top: string;
  readonly emptyTop: boolean;
  readonly keepUndo: boolean;
  readonly siblings: 'keep' | 'invalidate';
  readonly unsafe: boolean;
  readonly deletes: boolean;
  readonly verify: boolean;
  /** Bytes between two checkpoints: tiny, so that a run has several. */
  readonly checkpointBytes: number;
}

/** A pool of images and a job on them: everything that a seed means. Plain data. */
export interface Scenario {
  readonly seed: number;
  readonly strategy: StrategyName;
  readonly kind: Kind;
  /** Operations take different times, so that what runs at the same time ends in another order. */
  readonly jitter: boolean;
  /** Writes are torn at sectors. */
  readonly tear: boolean;
  /** Backing files before their overlays. */
  readonly images: readonly ImageSpec[];
  readonly request: Request;
}

/** What a seed means for a strategy. */
export function scenarioOf(strategy: StrategyName, seed: number): Scenario {
  const random = draw(seed * 16 + STRATEGIES.indexOf(strategy) + 1);
  const kind = weighted(random, KINDS);
  const sectors = sectorsOf(random, kind);
  const images = chainOf(random, strategy, kind, sectors);
  const request = requestOf(random, strategy, images);
  const others = random.chance(0.4) ? siblingsOf(random, images, kind, sectors) : [];
  const onto = strategy === 'rebase' ? ontoOf(random, images, kind, sectors) : [];
  return {
    seed,
    strategy,
    kind,
    jitter: random.chance(0.4),
    tear: random.chance(0.3),
    images: [...images, ...others, ...onto],
    request:
      strategy === 'rebase' ? { ...request, base: baseOfRebase(random, images, onto) } : request,
  };
}

function weighted<T>(random: Draw, choices: readonly (readonly [T, number])[]): T {
  let left = random.integer(choices.reduce((sum, [, weight]) => sum + weight, 0));
  for (const [choice, weight] of choices) {
    left -= weight;
    if (left < 0) return choice;
  }
  throw new RangeError('no choices');
}

function sectorsOf(random: Draw, kind: Kind): number {
  if (kind === 'long') return random.pick([4090, 4110]);
  // with its metadata a full disk of so many sectors all but fills what one refcount table of one cluster can count
  if (kind === 'dense') return random.between(3955, 3966);
  if (kind === 'subclusters' || kind === 'large') return random.between(64, 140);
  if (kind === 'huge') return random.between(16, 40);
  return random.between(24, 72);
}

function chainOf(
  random: Draw,
  strategy: StrategyName,
  kind: Kind,
  sectors: number,
): readonly ImageSpec[] {
  const least = strategy === 'stream' ? 3 : 2;
  const depth = Math.max(least, random.pick([2, 3, 3, 3, 4, 4, 5]));
  const images: ImageSpec[] = [];
  for (let index = 0; index < depth; index++) {
    const backing = images.at(-1)?.name ?? null;
    images.push(imageOf(random, `l${index}`, backing, kind, sectors));
  }
  return images;
}

function imageOf(
  random: Draw,
  name: string,
  backing: string | null,
  kind: Kind,
  sectors: number,
): ImageSpec {
  const raw = backing === null && random.chance(0.2) && kind !== 'dense';
  const snapshot = !raw && kind !== 'dense' && kind !== 'long' && random.chance(0.12);
  const version = random.chance(0.2) && kind !== 'refcounts' && kind !== 'subclusters' ? 2 : 3;
  const extendedL2 = kind === 'subclusters' && random.chance(0.7);
  return {
    name,
    format: raw ? 'raw' : 'qcow2',
    backing,
    // an image of version 2 that has snapshots cannot grow
    size: snapshot && version === 2 ? sectors * SECTOR_BYTES : sizeOf(random, kind, sectors, raw),
    clusterSize: raw ? 1 : clusterOf(random, kind, extendedL2),
    version,
    extendedL2,
    refcountBits: version === 2 ? 16 : kind === 'refcounts' || kind === 'dense' ? 64 : 16,
    density: kind === 'dense' && backing === null ? 1 : densityOf(random, kind),
    // the snapshots that are made here need all counts in one block
    snapshot: snapshot && kind !== 'refcounts',
    compressed: !raw && !extendedL2 && kind === 'small' && random.chance(0.15),
    unknownAutoclear: !raw && version === 3 && random.chance(0.06),
  };
}

function clusterOf(random: Draw, kind: Kind, extendedL2: boolean): number {
  if (kind === 'huge') return random.pick([512, 4096, 2 << 20]);
  if (extendedL2) return 16 << 10;
  if (kind === 'large') return random.pick([4096, 8192, 64 << 10]);
  if (kind === 'names') return random.pick([1024, 2048, 4096]);
  if (kind === 'subclusters') return random.pick([512, 4096]);
  if (kind === 'small') return random.pick([512, 512, 512, 1024, 2048]);
  return 512;
}

/** All size shapes: mostly the same, often shorter, rarely not a whole number of sectors. */
function sizeOf(random: Draw, kind: Kind, sectors: number, raw: boolean): number {
  const full = sectors * SECTOR_BYTES;
  if (random.chance(0.65)) return full;
  // past the reach of the first L2 table, or of the first cluster of the L1 table
  if (kind === 'long') return random.pick([2040, 4090, 4110]) * SECTOR_BYTES;
  const length = random.between(Math.ceil(sectors / 4), sectors) * SECTOR_BYTES;
  return raw || random.chance(0.8) ? length : length - random.between(1, SECTOR_BYTES - 1);
}

function densityOf(random: Draw, kind: Kind): number {
  return kind === 'long' || kind === 'dense'
    ? 0.004
    : random.pick([0, 0.2, 0.2, 0.4, 0.4, 0.6, 0.6, 0.8, 0.8]);
}

function requestOf(random: Draw, strategy: StrategyName, images: readonly ImageSpec[]): Request {
  const leaf = images.length - 1;
  const name = (index: number): string => (images[index] as ImageSpec).name;
  const common = {
    file: name(leaf),
    keepUndo: strategy === 'staged' && random.chance(0.25),
    unsafe: strategy === 'rebase' && random.chance(0.1),
    deletes: random.chance(0.2),
    verify: random.chance(0.1),
    siblings: strategy === 'preserve' && random.chance(0.8) ? 'keep' : 'invalidate',
    checkpointBytes: random.pick([1024, 2048, 2048, 4096, 8192, 32768]),
  } as const;
  if (strategy === 'rebase') return { ...common, base: null, top: name(leaf), emptyTop: false };
  if (strategy === 'stream') {
    const base = random.chance(0.5) ? null : name(random.between(0, leaf - 2));
    return { ...common, base, top: name(leaf), emptyTop: false };
  }
  const top = leaf === 1 || random.chance(0.3) ? leaf : random.between(1, leaf - 1);
  const base = random.between(0, top - 1);
  return {
    ...common,
    base: name(base),
    top: name(top),
    emptyTop: top === leaf && random.chance(0.5),
  };
}

/** Overlays of the chain's images outside the chain, now and then one on another. */
function siblingsOf(
  random: Draw,
  images: readonly ImageSpec[],
  kind: Kind,
  sectors: number,
): readonly ImageSpec[] {
  const small = kind === 'dense' || kind === 'long' ? 'small' : kind;
  const siblings: ImageSpec[] = [];
  for (let index = random.between(1, 2); index > 0; index--) {
    const below = random.chance(0.2) ? siblings.at(-1) : undefined;
    const backing = below ?? images[random.integer(images.length - 1)];
    siblings.push(
      imageOf(random, `s${index}`, (backing as ImageSpec).name, small, Math.min(sectors, 72)),
    );
  }
  return siblings;
}

/** `rebase`: another chain to go onto, of its own or off the old one. */
function ontoOf(
  random: Draw,
  images: readonly ImageSpec[],
  kind: Kind,
  sectors: number,
): readonly ImageSpec[] {
  if (random.chance(0.3)) return [];
  const root = random.chance(0.5) ? null : (images[0] as ImageSpec).name;
  const first = imageOf(random, 'n0', root, kind, sectors);
  return random.chance(0.5) ? [first] : [first, imageOf(random, 'n1', 'n0', kind, sectors)];
}

function baseOfRebase(
  random: Draw,
  images: readonly ImageSpec[],
  onto: readonly ImageSpec[],
): string | null {
  const fresh = onto.at(-1);
  if (fresh !== undefined) return fresh.name;
  if (random.chance(0.3)) return null;
  return (images[random.integer(Math.max(1, images.length - 2))] as ImageSpec).name;
}
