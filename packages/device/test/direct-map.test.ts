import type { ChainLayer, LayerFacts } from '@downfold/chain';
import { type ExtentBatch, ExtentList, type Image, KIND } from '@downfold/image';
import { type GuestRange, rangeEnd, SharedMapReader } from '@downfold/units';
import { describe, expect, test } from 'vitest';
import { DirectMap } from '../src/direct-map.ts';
import { range, settled } from './support.ts';

const UNIT = 65_536;
const WINDOW = 1024 * UNIT;
/** Windows that the map has room for. */
const SLOTS = 2048;
const SIZE = (SLOTS + 2) * WINDOW;

/** An image of one file whose every cluster lies where the guest has it; what is asked of it is written down, and `pause` awaited. */
function linear(asked: GuestRange[], pause: () => Promise<void>): ChainLayer {
  const image = {
    writable: false,
    data: { descriptor: 7 },
    geometry: { virtualSize: SIZE, clusterSize: UNIT, allocationGranularity: UNIT },
    async *extents(of: GuestRange): AsyncGenerator<ExtentBatch, void, undefined> {
      asked.push(of);
      await pause();
      const list = new ExtentList();
      list.add(KIND.data, of.offset, rangeEnd(of), of.offset);
      yield list;
    },
  };
  return { facts: { node: 'l' } as LayerFacts, image: image as unknown as Image };
}

async function mapOn(pause: () => Promise<void> = async () => undefined) {
  const asked: GuestRange[] = [];
  const layers = [linear(asked, pause)];
  const direct = new DirectMap((_, work) => work(layers));
  direct.resume(layers, SIZE);
  const reader = new SharedMapReader(direct.map.buffer, direct.map.addReader() as number);
  const knows = (offset: number): boolean => {
    reader.enter();
    const is = reader.find(offset, offset + 1);
    reader.leave();
    return is;
  };
  const learn = async (offset: number): Promise<void> => {
    direct.learn(offset, UNIT);
    await settled();
  };
  return { asked, layers, direct, knows, learn };
}

describe('what threads are told of a disk', () => {
  test('a window is learnt whole, once, and those behind it as long as nothing has to go for them', async () => {
    const { asked, direct, knows, learn } = await mapOn();
    const far = WINDOW + SLOTS * WINDOW;
    // in the place of the second window
    await direct.map.claim(far);
    await learn(5 * UNIT);
    const all = [0, WINDOW - 1, WINDOW, 2 * WINDOW, 8 * WINDOW, 9 * WINDOW];
    expect(all.map(knows)).toEqual([true, true, false, true, true, false]);
    await learn(5 * UNIT);
    const behind = [2, 3, 4, 5, 6, 7, 8].map((window) => range(window * WINDOW, WINDOW));
    expect(asked).toEqual([range(0, WINDOW), ...behind]);
    expect(direct.map.has(far)).toBe(true);
  });

  test('nothing is learnt while nobody reads', async () => {
    const { asked, direct, learn } = await mapOn();
    direct.map.removeReader(0);
    await learn(0);
    expect(asked).toEqual([]);
  });

  test('what a change touches is forgotten until somebody asks for it again', async () => {
    const { asked, direct, knows, learn } = await mapOn();
    await learn(0);
    const span = direct.begin(range(3 * UNIT + 512, 512));
    expect([2, 3, 4].map((unit) => knows(unit * UNIT))).toEqual([true, false, true]);
    direct.end(span);
    await learn(2 * UNIT);
    expect(knows(3 * UNIT)).toBe(false);
    await learn(3 * UNIT);
    expect(knows(3 * UNIT)).toBe(true);
    expect(asked.at(-1)).toEqual(range(3 * UNIT, UNIT));
  });

  test('a window of which a part alone was learnt is learnt where else it is asked for', async () => {
    // the look ends half way, as where an image cannot be read
    let fails = true;
    const { knows, learn } = await mapOn(async () => {
      if (fails) throw new Error('cannot be read');
    });
    await learn(0);
    expect(knows(0)).toBe(false);
    fails = false;
    for (const unit of [0, 700]) {
      await learn(unit * UNIT);
      expect(knows(unit * UNIT)).toBe(true);
    }
  });

  test('what changes while it is looked at stays unknown, and nothing else does', async () => {
    const gate = Promise.withResolvers<void>();
    const { direct, knows, learn } = await mapOn(() => gate.promise);
    await learn(0);
    const span = direct.begin(range(8 * UNIT, UNIT));
    // over before the look is: what was looked up may be from before it
    direct.end(span);
    gate.resolve();
    await settled();
    expect([7, 8, 9].map((unit) => knows(unit * UNIT))).toEqual([true, false, true]);
  });

  test('what was asked for before a section is not learnt after it', async () => {
    let looks = 0;
    const gates = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    gates[1]?.resolve();
    const { asked, layers, direct, knows, learn } = await mapOn(
      () => gates[Math.min(looks++, 1)]?.promise as Promise<void>,
    );
    await learn(0);
    // waits for the first
    direct.learn(WINDOW, UNIT);
    const suspended = direct.suspend();
    gates[0]?.resolve();
    await suspended;
    await settled();
    direct.resume(layers, SIZE);
    await settled();
    expect(asked).toHaveLength(1);
    expect(knows(WINDOW)).toBe(false);
    await learn(WINDOW);
    expect(knows(WINDOW)).toBe(true);
  });

  describe('of a layer below that a job writes', () => {
    /** Below an active layer that has nothing; `gives` is what the layer calls before it gives places to others. */
    const below = (pause: () => Promise<void>, promises: boolean) => {
      const asked: GuestRange[] = [];
      let gives: (() => Promise<void>) | null = null;
      const { facts, image } = linear(asked, pause);
      const written = Object.assign(image, {
        writable: true,
        ...(promises && {
          beforeReuse: (gone: () => Promise<void>): Disposable => {
            gives = gone;
            return { [Symbol.dispose]: () => (gives = null) };
          },
        }),
      });
      const empty = linear([], async () => undefined).image;
      const active = Object.assign(empty, {
        writable: true,
        async *extents(of: GuestRange): AsyncGenerator<ExtentBatch, void, undefined> {
          const list = new ExtentList();
          list.add(KIND.unallocated, of.offset, rangeEnd(of), 0);
          yield list;
        },
      });
      const layers = [
        { facts, image: written },
        { facts: { node: 'active' } as LayerFacts, image: active },
      ];
      return { layers, asked, gives: () => gives };
    };
    const on = (layers: readonly ChainLayer[]) => {
      const direct = new DirectMap((_, work) => work(layers));
      direct.resume(layers, SIZE);
      const reader = new SharedMapReader(direct.map.buffer, direct.map.addReader() as number);
      const knows = (): boolean => {
        reader.enter();
        const is = reader.find(0, 1);
        reader.leave();
        return is;
      };
      return { direct, reader, knows };
    };

    test('nothing, when it does not say what it gives away', async () => {
      const { layers } = below(async () => undefined, false);
      const { direct, knows } = on(layers);
      direct.learn(0, UNIT);
      await settled();
      expect(knows()).toBe(false);
    });

    test('all is forgotten, and nobody inside, before it gives places to others', async () => {
      const { layers, gives } = below(async () => undefined, true);
      const { direct, reader, knows } = on(layers);
      direct.learn(0, UNIT);
      await settled();
      expect(knows()).toBe(true);
      reader.enter();
      let isGone = false;
      const gone = gives()?.().then(() => {
        isGone = true;
      });
      await settled();
      expect(isGone).toBe(false);
      reader.leave();
      await gone;
      expect(knows()).toBe(false);
      direct.learn(0, UNIT);
      await settled();
      expect(knows()).toBe(true);
      // nobody listens to it while nothing is known, nor for a chain that it is no part of
      await direct.suspend();
      expect(gives()).toBe(null);
      direct.resume(layers.slice(1), SIZE);
      expect(gives()).toBe(null);
    });

    test('what was looked up before is not learnt after', async () => {
      const gate = Promise.withResolvers<void>();
      const { layers, gives } = below(() => gate.promise, true);
      const { direct, knows } = on(layers);
      direct.learn(0, UNIT);
      await settled();
      await gives()?.();
      gate.resolve();
      await settled();
      expect(knows()).toBe(false);
    });
  });
});
