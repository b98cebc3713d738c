// The pools of images that jobs are killed on. Sizes and places are in KiB.

/** One image of a pool. */
export interface ImageSpec {
  readonly name: string;
  readonly format: 'qcow2' | 'raw';
  readonly backing: string | null;
  readonly size: number;
  /** `-o` of `qemu-img create`. */
  readonly options?: string;
  /** Data that it holds. */
  readonly data: readonly (readonly [offset: number, length: number])[];
}

/** Images that lie in one directory, backing files before their overlays; always a base, a top and an active. */
export interface PoolSpec {
  readonly name: string;
  readonly images: readonly ImageSpec[];
}

const MIB = 1024;

function image(
  name: string,
  backing: string | null,
  mebibytes: number,
  data: ImageSpec['data'],
  more: Partial<ImageSpec> = {},
): ImageSpec {
  return { name, format: 'qcow2', backing, size: mebibytes * MIB, data, ...more };
}

const BASE = image('base', null, 40, [
  [0, 8 * MIB],
  [30 * MIB, 4 * MIB],
]);
const MID = image('mid', 'base', 40, [
  [2 * MIB, 6 * MIB],
  [16 * MIB, 8 * MIB],
  [39 * MIB, 192],
]);
const TOP = image('top', 'mid', 40, [
  [MIB, 3 * MIB],
  [9 * MIB, 6 * MIB],
  [20 * MIB, 8 * MIB],
  [32 * MIB, MIB],
]);
const ACTIVE = image('active', 'top', 40, [
  [512, 128],
  [22 * MIB, 512],
  [36 * MIB, 64],
]);

/** `base <-- mid <-- top <-- active`. */
export const PLAIN: PoolSpec = { name: 'plain', images: [BASE, MID, TOP, ACTIVE] };

/** The same, with an overlay outside the chain on each image below active. */
export const SIBLINGS: PoolSpec = {
  name: 'siblings',
  images: [
    ...PLAIN.images,
    image('base-side', 'base', 40, [[4 * MIB, 2 * MIB]]),
    image('mid-side', 'mid', 40, [[18 * MIB, MIB]]),
    image('top-side', 'top', 40, [[10 * MIB, MIB]]),
  ],
};

/** Short layers: mid hides what base holds past its end, and active is longer than top. Small clusters. */
export const SIZES: PoolSpec = {
  name: 'sizes',
  images: [
    { ...BASE, options: 'cluster_size=4k' },
    image('mid', 'base', 24, [
      [2 * MIB, 6 * MIB],
      [16 * MIB, 8 * MIB],
    ]),
    image('top', 'mid', 32, [
      [MIB, 3 * MIB],
      [9 * MIB, 6 * MIB],
      [20 * MIB, 8 * MIB],
    ]),
    ACTIVE,
  ],
};

/** A raw base that must grow; subclusters and an old version above it. */
export const GROWING: PoolSpec = {
  name: 'growing',
  images: [
    image('base', null, 16, [[0, 8 * MIB]], { format: 'raw' }),
    { ...MID, options: 'extended_l2=on' },
    { ...TOP, options: 'compat=0.10' },
    ACTIVE,
  ],
};

/** Six layers, all of them in each other's way. */
export const DEEP: PoolSpec = {
  name: 'deep',
  images: [
    BASE,
    image('low', 'base', 40, [[6 * MIB, 6 * MIB]]),
    image('mid', 'low', 40, [
      [2 * MIB, 6 * MIB],
      [16 * MIB, 6 * MIB],
    ]),
    image('high', 'mid', 40, [
      [10 * MIB, 4 * MIB],
      [20 * MIB, 6 * MIB],
    ]),
    { ...TOP, backing: 'high' },
    ACTIVE,
  ],
};
