// The standard chains that docs/strategies.md compares the strategies on. Sizes and places are in KiB.
import type { ImageSpec, PoolSpec } from '../kill/pools.ts';

const MIB = 1024;
const SIZE = 256 * MIB;

/** A chain of the set. */
export interface StandardChain {
  readonly pool: PoolSpec;
  /** What it is like, for the table. */
  readonly what: string;
}

function layer(name: string, backing: string | null, data: ImageSpec['data']): ImageSpec {
  return { name, format: 'qcow2', backing, size: SIZE, data };
}

/** Pieces of `length` every `step`, from `first` to `end`. */
function pieces(first: number, end: number, step: number, length: number): ImageSpec['data'] {
  const count = Math.ceil((end - first) / step);
  return Array.from({ length: count }, (_, index) => [first + index * step, length] as const);
}

const ACTIVE = layer('active', 'top', [[MIB, 256]]);
const BASE = layer('base', null, [[0, 128 * MIB]]);

/** All of them. A commit is of top into base. */
export const CHAINS: readonly StandardChain[] = [
  {
    what: 'two layers of 64 MiB, half of them over data of base',
    pool: {
      name: 'plain',
      images: [
        BASE,
        layer('mid', 'base', [[96 * MIB, 64 * MIB]]),
        layer('top', 'mid', [
          [32 * MIB, 32 * MIB],
          [192 * MIB, 32 * MIB],
        ]),
        ACTIVE,
      ],
    },
  },
  {
    what: 'the same, scattered: pieces of 64 KiB, 128 KiB apart',
    pool: {
      name: 'scattered',
      images: [
        BASE,
        layer('mid', 'base', pieces(64 * MIB, 192 * MIB, 256, 64)),
        layer('top', 'mid', pieces(64 * MIB + 128, 192 * MIB, 256, 64)),
        ACTIVE,
      ],
    },
  },
  {
    what: 'three layers, each writing the same 64 MiB anew',
    pool: {
      name: 'rewritten',
      images: [
        BASE,
        layer('low', 'base', [[96 * MIB, 64 * MIB]]),
        layer('mid', 'low', [[96 * MIB, 64 * MIB]]),
        layer('top', 'mid', [[96 * MIB, 64 * MIB]]),
        ACTIVE,
      ],
    },
  },
  {
    what: 'three layers of 64 MiB, the third over the first: depth-first copies that twice',
    pool: {
      name: 'skipping',
      images: [
        BASE,
        layer('low', 'base', [[96 * MIB, 64 * MIB]]),
        layer('mid', 'low', [[192 * MIB, 64 * MIB]]),
        layer('top', 'mid', [[96 * MIB, 64 * MIB]]),
        ACTIVE,
      ],
    },
  },
  {
    what: 'the first, with two more overlays of base',
    pool: {
      name: 'siblings',
      images: [
        BASE,
        layer('mid', 'base', [[96 * MIB, 64 * MIB]]),
        layer('top', 'mid', [
          [32 * MIB, 32 * MIB],
          [192 * MIB, 32 * MIB],
        ]),
        ACTIVE,
        layer('one', 'base', [[0, 16 * MIB]]),
        layer('two', 'base', [[224 * MIB, 16 * MIB]]),
      ],
    },
  },
];
