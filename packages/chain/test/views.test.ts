import { seededRandom } from '@downfold/compliance';
import { ExtentList, KIND } from '@downfold/image';
import { guestOffset, rangeBetween, rangeEnd } from '@downfold/units';
import { describe, expect, it } from 'vitest';
import {
  type ChainLayer,
  type OpenChain,
  type OwnedBatch,
  type OwnedExtent,
  openChain,
  subchainExtents,
  viewOf,
} from '../src/index.ts';
import { diskOf, environmentOn } from './support.ts';
import { type ToyLayer, toyByte } from './toy-format.ts';

/** Random chains: 200, or one by `SEED`, as a failure says. */
const one = process.env['DOWNFOLD_CHAIN_SEED'];
const seeds =
  one === undefined ? Array.from({ length: 200 }, (_, seed) => seed + 1) : [Number(one)];
const replay = (seed: number): string =>
  `replay: DOWNFOLD_CHAIN_SEED=${seed} vitest run --project chain views`;

/** Two to six layers of any sizes, sizes of cells and allocation; the disk of the longest is below 3 KiB. */
function randomLayers(seed: number): readonly ToyLayer[] {
  const random = seededRandom(seed);
  const integer = (below: number): number => Math.floor(random() * below);
  const letters = ['d', 'd', 'c', 'z', 'p', 'u', 'u', 'u'];
  return Array.from({ length: 2 + integer(5) }, (_, index) => {
    const cellSize = 64 << integer(4);
    const size = 1 + integer(random() < 0.3 ? 400 : 3000);
    const cells = Array.from({ length: Math.ceil(size / cellSize) }, () => letters[integer(8)]);
    const layer = { cells: cells.join(''), cellSize, size, fill: index + 1 };
    return index === 0 ? layer : { ...layer, backing: { name: `${index - 1}`, format: 'toy' } };
  });
}

async function openLayers(layers: readonly ToyLayer[]): Promise<OpenChain> {
  const files = Object.fromEntries(layers.map((layer, index) => [`/p/${index}`, layer]));
  const environment = environmentOn(await diskOf(files));
  return openChain(`/p/${layers.length - 1}`, 'toy', environment);
}

/** What a layer says of one byte, by the letter of its cell. */
const letterAt = ({ cells, cellSize }: ToyLayer, at: number): string =>
  cells[Math.floor(at / cellSize)] ?? '?';

/** The model: which layer decides a byte, going down from `top`; null: none above `base`. Past its end a layer decides: zero. */
function ownerAt(
  layers: readonly ToyLayer[],
  base: number,
  top: number,
  at: number,
): number | null {
  for (let index = top; index > base; index--) {
    const layer = layers[index] as ToyLayer;
    if (at >= layer.size || letterAt(layer, at) !== 'u') return index;
  }
  return null;
}

/** The model: the byte that a guest reads from the disk of layer `top`. */
function byteAt(layers: readonly ToyLayer[], top: number, at: number): number {
  const owner = ownerAt(layers, -1, top, at);
  if (owner === null) return 0;
  const layer = layers[owner] as ToyLayer;
  return at < layer.size && 'dc'.includes(letterAt(layer, at)) ? toyByte(layer, at) : 0;
}

const STATUS: Readonly<Record<string, string>> = {
  d: 'data',
  c: 'compressed',
  z: 'zero',
  p: 'zero',
};

/** The model: who decides each byte of [from, to) and how, as one text a byte. */
function decisions(
  layers: readonly ToyLayer[],
  { base, top }: { base: number; top: number },
  from: number,
  to: number,
): readonly string[] {
  return Array.from({ length: to - from }, (_, index) => {
    const at = from + index;
    const owner = ownerAt(layers, base, top, at);
    if (owner === null) return 'nobody unallocated';
    const layer = layers[owner] as ToyLayer;
    const letter = at >= layer.size ? 'z' : letterAt(layer, at);
    return `${owner} ${STATUS[letter]}${letter === 'p' ? ' preallocated' : ''}`;
  });
}

/** The same of an extent. */
function decisionOf(extent: OwnedExtent): string {
  const preallocated = extent.status === 'zero' && extent.preallocated;
  return `${extent.owner ?? 'nobody'} ${extent.status}${preallocated ? ' preallocated' : ''}`;
}

describe('random chains against a model of bytes', () => {
  it('every view reads as the model says, past its own end too', async () => {
    for (const seed of seeds) {
      const layers = randomLayers(seed);
      await using chain = await openLayers(layers);
      const random = seededRandom(seed);
      for (const top of layers.keys()) {
        const view = viewOf(chain.layers, top);
        const from = Math.floor(random() * 500);
        const target = Buffer.alloc(3200 - from, 0x77);
        await view(guestOffset(from), target);
        const wanted = target.map((_, index) => byteAt(layers, top, from + index));
        expect(Buffer.compare(target, wanted), `layer ${top}; ${replay(seed)}`).toBe(0);
      }
    }
  });

  it('extents of every subchain are gapless, in order and maximal, and name the layer that decides', async () => {
    for (const seed of seeds) {
      const layers = randomLayers(seed);
      await using chain = await openLayers(layers);
      const random = seededRandom(seed);
      for (const top of layers.keys()) {
        const base = Math.floor(random() * (top + 1)) - 1;
        const from = Math.floor(random() * 500);
        const range = rangeBetween(guestOffset(from), from + 1 + Math.floor(random() * 3000));
        const extents: OwnedExtent[] = [];
        for await (const batch of subchainExtents(chain.layers, { base, top }, range))
          extents.push(...batch);
        const context = `base ${base}, top ${top}; ${replay(seed)}`;
        const ends = [range.offset, ...extents.map(rangeEnd)];
        expect(
          extents.map(({ offset }) => offset),
          context,
        ).toEqual(ends.slice(0, -1));
        expect(ends.at(-1), context).toBe(rangeEnd(range));
        const said = extents.flatMap((extent) =>
          Array<string>(extent.length).fill(decisionOf(extent)),
        );
        const wanted = decisions(layers, { base, top }, range.offset, rangeEnd(range));
        expect(said.join(), context).toBe(wanted.join());
        assertMaximal(extents, context);
        await assertHosts(chain, layers, extents, context);
      }
    }
  });
});

/** A layer that says its extents in these batches, of a disk of `size` bytes. */
function saying(size: number, ...batches: readonly ExtentList[]): ChainLayer {
  const image = {
    geometry: { virtualSize: size },
    extents: async function* () {
      yield* batches;
    },
  };
  return { image } as unknown as ChainLayer;
}

/** `count` extents of `length` bytes from byte `from` on: data and nothing in turn, at places of their own. */
function striped(from: number, count: number, length: number): ExtentList {
  const list = new ExtentList();
  for (let index = 0; index < count; index++) {
    const start = from + index * length;
    list.add(index % 2 === 0 ? KIND.data : KIND.unallocated, start, start + length, 2 * start);
  }
  return list;
}

describe('extents of one layer', () => {
  const range = rangeBetween(guestOffset(0), 5000);
  const all = async (layer: ChainLayer) => {
    const batches: OwnedBatch[] = [];
    for await (const batch of subchainExtents([layer], { base: -1, top: 0 }, range))
      batches.push(batch);
    return batches;
  };

  it('are handed on as they are when there are many, what comes before them first, and zeros behind its end', async () => {
    const few = striped(0, 3, 10);
    const batches = await all(saying(4030, few, striped(30, 400, 10)));
    expect(batches.map(({ length }) => length)).toEqual([3, 400, 1]);
    const extents = batches.flatMap((batch) => [...batch]);
    const ends = extents.map(rangeEnd);
    expect(extents.map(({ offset }) => Number(offset))).toEqual([0, ...ends.slice(0, -1)]);
    expect(ends.at(-1)).toBe(5000);
    expect(extents.slice(1, 5).map(({ status, owner }) => [status, owner])).toEqual([
      ['unallocated', null],
      ['data', 0],
      ['data', 0],
      ['unallocated', null],
    ]);
    expect(extents.at(-1)).toMatchObject({ offset: 4030, status: 'zero', owner: 0 });
  });

  it('are joined where the layer does not', async () => {
    const list = striped(0, 400, 10);
    const apart = new ExtentList();
    for (const extent of list) {
      const { offset, length, status } = extent;
      const half = length / 2;
      const host = status === 'data' ? extent.host : 0;
      for (const at of [0, half]) {
        const one = new ExtentList();
        one.add(KIND[status], offset + at, offset + at + half, host + at);
        for (const key of ['starts', 'ends', 'kinds', 'hosts'] as const)
          apart[key].push(...one[key]);
      }
    }
    expect(apart.length).toBe(800);
    const [batch] = await all(saying(4000, apart));
    expect(batch?.length).toBe(401);
  });

  it('that end before the layer does are an error', async () => {
    await expect(all(saying(4000, striped(0, 300, 10)))).rejects.toThrow('end too early');
  });
});

/** Neighbours differ: in who decides and how, or, when both have their place in the file, because they do not touch there. */
function assertMaximal(extents: readonly OwnedExtent[], context: string): void {
  for (const [index, extent] of extents.slice(1).entries()) {
    const before = extents[index] as OwnedExtent;
    if (decisionOf(before) !== decisionOf(extent)) continue;
    if (before.status === 'zero' && before.preallocated) continue;
    const touch =
      before.status === 'data' &&
      extent.status === 'data' &&
      extent.host === before.host + before.length;
    expect([before.status, touch], context).toEqual(['data', false]);
  }
}

/** What `host` points at in the owner's file are the bytes of the disk. */
async function assertHosts(
  chain: OpenChain,
  layers: readonly ToyLayer[],
  extents: readonly OwnedExtent[],
  context: string,
): Promise<void> {
  for (const extent of extents) {
    if (extent.status !== 'data' || extent.owner === null) continue;
    const bytes = Buffer.alloc(extent.length);
    await chain.layers[extent.owner]?.image.data.read(extent.host, bytes);
    const layer = layers[extent.owner] as ToyLayer;
    const wanted = bytes.map((_, index) => toyByte(layer, extent.offset + index));
    expect(Buffer.compare(bytes, wanted), context).toBe(0);
  }
}

describe('the rule of the short layer', () => {
  const short: ToyLayer = {
    cells: 'u',
    cellSize: 100,
    size: 100,
    fill: 2,
    backing: { name: '0', format: 'toy' },
  };
  const layers: readonly ToyLayer[] = [
    { cells: 'ddd', cellSize: 100, size: 300, fill: 1 },
    short,
    { cells: 'uuu', cellSize: 100, size: 300, fill: 3, backing: { name: '1', format: 'toy' } },
  ];

  it('past the end of a short layer there are zeros, although the layer below has data there', async () => {
    await using chain = await openLayers(layers);
    const target = new Uint8Array(300);
    await viewOf(chain.layers, 2)(guestOffset(0), target);
    const wanted = target.map((_, at) => (at < 100 ? toyByte(layers[0] as ToyLayer, at) : 0));
    expect(target).toEqual(wanted);
  });

  it('that zero is owned by the short layer: it counts as allocated above base', async () => {
    await using chain = await openLayers(layers);
    const extents: OwnedExtent[] = [];
    const range = rangeBetween(guestOffset(0), 300);
    for await (const batch of subchainExtents(chain.layers, { base: 0, top: 2 }, range))
      extents.push(...batch);
    expect(extents).toEqual([
      { offset: 0, length: 100, status: 'unallocated', owner: null },
      { offset: 100, length: 200, status: 'zero', preallocated: false, owner: 1 },
    ]);
  });
});

it('a walk that is given up closes the walks of its layers', async () => {
  await using chain = await openLayers(randomLayers(1));
  let closed = 0;
  const layers = chain.layers.map(({ facts, image }) => ({
    facts,
    image: {
      ...image,
      extents: async function* (...args: Parameters<typeof image.extents>) {
        try {
          yield* image.extents(...args);
        } finally {
          closed++;
        }
      },
    },
  }));
  const top = layers.length - 1;
  const size = layers[top]?.image.geometry.virtualSize ?? 0;
  for await (const _ of subchainExtents(
    layers,
    { base: -1, top },
    rangeBetween(guestOffset(0), size),
  ))
    break;
  expect(closed).toBeGreaterThan(0);
});

it('there is no view of a layer that is not there', async () => {
  await using chain = await openLayers(randomLayers(1));
  expect(() => viewOf(chain.layers, 99)).toThrow('no layer 99');
});
