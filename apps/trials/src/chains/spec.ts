import { type Draw, draw } from '../tools/draw.ts';

/** One change of a layer, as `qemu-io` makes it. */
export interface Change {
  readonly kind: 'write' | 'compressed' | 'zero' | 'zero-unmap' | 'discard';
  /** Bytes. */
  readonly offset: number;
  readonly length: number;
  /** Which pattern file a write takes its bytes from. */
  readonly pattern: number;
}

/** One layer of a random chain. */
export interface LayerSpec {
  readonly file: string;
  readonly format: 'qcow2' | 'raw';
  /** Bytes; a raw file may have any. */
  readonly size: number;
  /** `-o` of `qemu-img create`, backing file excepted. */
  readonly options: string;
  /** The backing name in the header: as it stands there, or with the directory before it. */
  readonly backingName: 'relative' | 'absolute';
  readonly changes: readonly Change[];
  /** An internal snapshot is taken before the change of this index; null: none. */
  readonly snapshotBefore: number | null;
}

/** A chain, what to commit in it, and how. All of it follows from the seed. */
export interface ChainSpec {
  readonly seed: number;
  /** Bottom first. */
  readonly layers: readonly LayerSpec[];
  /** A second overlay of top, outside the chain; null: none. */
  readonly sibling: LayerSpec | null;
  /** An overlay of base or of an intermediate, outside the chain: who could be stranded; null: none. */
  readonly bystander: LayerSpec | null;
  /** Index of the layer that the bystander lies on. */
  readonly bystanderOn: number;
  /** Indexes into `layers`. */
  readonly base: number;
  readonly top: number;
  /** Only when top is the leaf: deallocate it instead of leaving it as it is. */
  readonly emptyTop: boolean;
}

/** How many pattern files there are. */
export const PATTERNS = 4;

const MIB = 1 << 20;

type Kinds = readonly [Change['kind'], ...Change['kind'][]];
const RAW_KINDS: Kinds = ['write', 'write', 'zero', 'discard'];
const QCOW2_KINDS: Kinds = [...RAW_KINDS, 'write', 'compressed', 'zero-unmap'];

/** The chain of a seed. */
export function chainSpec(seed: number): ChainSpec {
  const from = draw(seed);
  const depth = from.between(2, 8);
  const base = from.integer(depth - 1);
  const top = from.between(base + 1, depth - 1);
  const sizes = layerSizes(from, depth);
  const layers: LayerSpec[] = [];
  for (const [index, size] of sizes.entries()) {
    const grows = index === base && (sizes[top] ?? 0) > size;
    layers.push(
      index === 0 && from.chance(0.25)
        ? rawLayer(from, size)
        : qcow2Layer(from, `layer${index}.qcow2`, size, grows),
    );
  }
  const siblingSize = jitter(from, sizes[top] ?? MIB);
  const sibling =
    top < depth - 1 && from.chance(0.2)
      ? qcow2Layer(from, 'sibling.qcow2', siblingSize, false)
      : null;
  const emptyTop = top === depth - 1 && from.chance(0.5);
  const bystanderOn = from.between(base, top - 1);
  const bystander = from.chance(0.3)
    ? qcow2Layer(from, 'bystander.qcow2', jitter(from, sizes[bystanderOn] ?? MIB), false)
    : null;
  return { seed, layers, sibling, bystander, bystanderOn, base, top, emptyTop };
}

function layerSizes(from: Draw, depth: number): number[] {
  const sizes = [sectors(from.between(MIB / 4, 4 * MIB))];
  while (sizes.length < depth) sizes.push(jitter(from, sizes.at(-1) ?? MIB));
  return sizes;
}

/** The same, shorter or longer: half, a quarter and a quarter of the time. */
function jitter(from: Draw, size: number): number {
  if (from.chance(0.5)) return size;
  const least = from.chance(0.5) ? MIB / 8 : size;
  return sectors(from.between(least, least === size ? size + 2 * MIB : size));
}

const sectors = (bytes: number): number => Math.max(512, bytes - (bytes % 512));

function rawLayer(from: Draw, size: number): LayerSpec {
  const odd = from.chance(0.3) ? from.between(1, 511) : 0;
  return {
    file: 'layer0.raw',
    format: 'raw',
    size: size + odd,
    options: '',
    backingName: 'relative',
    changes: changes(from, size, 512, false),
    snapshotBefore: null,
  };
}

function qcow2Layer(from: Draw, file: string, size: number, grows: boolean): LayerSpec {
  const v2 = from.chance(0.25);
  const bits = from.chance(0.05) ? 21 : from.pick([9, 10, 12, 12, 14, 15, 16, 16, 16, 17, 18]);
  const extended = !v2 && bits >= 14 && from.chance(0.4);
  const options = [
    `compat=${v2 ? '0.10' : '1.1'}`,
    `cluster_size=${2 ** bits}`,
    ...(v2 ? [] : [`refcount_bits=${2 ** from.integer(7)}`]),
    ...(extended ? ['extended_l2=on'] : []),
    ...(!v2 && from.chance(0.3) ? ['compression_type=zstd'] : []),
  ];
  const list = changes(from, size, 2 ** bits, true);
  // narrow refcounts cannot count a cluster that a snapshot shares too, and QEMU cannot grow a v2 image that has one
  const narrow = options.some((option) => /^refcount_bits=[124]$/.test(option));
  const mayHaveSnapshot = !narrow && !(v2 && grows);
  const snapshot = mayHaveSnapshot && list.length > 1 && from.chance(0.15);
  return {
    file,
    format: 'qcow2',
    size,
    options: options.join(','),
    backingName: from.chance(0.6) ? 'relative' : 'absolute',
    changes: list,
    snapshotBefore: snapshot ? from.between(1, list.length - 1) : null,
  };
}

function changes(from: Draw, size: number, cluster: number, qcow2: boolean): Change[] {
  const list: Change[] = [];
  for (let count = from.between(0, 9); count > 0; count -= 1) {
    const kind = from.pick(qcow2 ? QCOW2_KINDS : RAW_KINDS);
    const unit = kind === 'compressed' ? cluster : from.pick([1, 512, 512, 4096, cluster]);
    const change = place(from, size, unit);
    if (kind === 'compressed' && change.length % cluster !== 0) continue;
    list.push({ kind, ...change, pattern: from.integer(PATTERNS) });
  }
  return compressedFirst(list);
}

/** QEMU writes compressed clusters only where nothing is allocated yet: they come first, and apart from each other. */
function compressedFirst(list: readonly Change[]): Change[] {
  const apart: Change[] = [];
  for (const change of list.filter(({ kind }) => kind === 'compressed'))
    if (!apart.some((other) => overlap(other, change))) apart.push(change);
  return [...apart, ...list.filter(({ kind }) => kind !== 'compressed')];
}

const overlap = (a: Change, b: Change): boolean =>
  a.offset < b.offset + b.length && b.offset < a.offset + a.length;

/** A range inside the disk, its ends on multiples of `unit` where the disk is long enough for that. */
function place(from: Draw, size: number, unit: number): { offset: number; length: number } {
  const units = Math.floor(size / unit);
  if (units === 0) return { offset: 0, length: size };
  const start = from.integer(units);
  const most = Math.max(1, Math.floor(Math.min(units - start, MIB / unit)));
  const count = from.chance(0.5) ? from.between(1, most) : from.between(1, Math.min(most, 4));
  return { offset: start * unit, length: count * unit };
}
