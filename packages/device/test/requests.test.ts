import { guestOffset } from '@downfold/units';
import { describe, expect, it } from 'vitest';
import type { Device } from '../src/index.ts';
import { Fuzz } from './fuzz.ts';
import {
  bytes,
  cellsOf,
  deviceOn,
  Gate,
  jitter,
  put,
  range,
  settled,
  shown,
  toyLayer,
  watched,
} from './support.ts';
import { CELL } from './toy-image.ts';

describe('requests at once', () => {
  it.each([1, 2, 3, 4, 5, 6])(
    'every read shows all that was called before it, whole: seed %i',
    async (seed) => {
      const fuzz = await Fuzz.on(3, seed);
      await fuzz.run(250);
      expect(fuzz.mistakes).toEqual([]);
      await fuzz.finish();
    },
  );

  it.each([11, 12, 13, 14, 15, 16])(
    'sections and other chains in between change nothing for them: seed %i',
    async (seed) => {
      const fuzz = await Fuzz.on(3, seed);
      await fuzz.run(250, { live: true });
      expect(fuzz.mistakes).toEqual([]);
      expect(fuzz.replaced).toBeGreaterThan(5);
      await fuzz.finish();
    },
  );
});

describe('order', () => {
  async function slow(stops: (what: string, offset: number) => boolean): Promise<[Device, Gate]> {
    const gate = new Gate(stops);
    const layer = await toyLayer({ size: 16 * CELL, pause: gate.pause });
    return [deviceOn([layer]), gate];
  }

  it('overlapping changes are applied in the order of their calls, though the first is slow', async () => {
    const [device, gate] = await slow((what, offset) => what === 'write' && offset === 0);
    const all = [
      device.write(guestOffset(0), bytes(2048, 1)),
      device.writeZeroes(range(512, 1024)),
      device.write(guestOffset(1024), bytes(1024, 3)),
      device.discard(range(1024, 1024)),
      device.write(guestOffset(1536), bytes(512, 5)),
    ];
    await settled();
    gate.open();
    await Promise.all(all);
    const seen = await shown(device, 0, 2048);
    expect([0, 512, 1024, 1536].map((at) => seen[at])).toEqual([1, 0, 0, 5]);
  });

  it('a read of other bytes does not wait for a write, one of the same bytes sees all of it', async () => {
    const [device, gate] = await slow((what) => what === 'write');
    const write = watched(device.write(guestOffset(CELL), bytes(2 * CELL, 9)));
    const beside = watched(shown(device, 3 * CELL, CELL));
    const before = watched(shown(device, 0, CELL));
    const same = shown(device, 3 * CELL - 1, 2);
    const over = watched(same);
    await settled();
    expect([write.state, beside.state, before.state, over.state]).toEqual([
      'waits',
      'done',
      'done',
      'waits',
    ]);
    gate.open();
    expect([...(await same)]).toEqual([9, 0]);
  });

  it('a write waits for an earlier read of the same bytes', async () => {
    const [device, gate] = await slow((what, offset) => what === 'read' && offset === CELL);
    const read = shown(device, 0, 2 * CELL);
    const write = watched(device.write(guestOffset(0), bytes(2 * CELL, 7)));
    await settled();
    expect(write.state).toBe('waits');
    gate.open();
    expect((await read).every((byte) => byte === 0)).toBe(true);
    await settled();
    expect(write.state).toBe('done');
  });

  it('reads of the same bytes run side by side', async () => {
    const [device, gate] = await slow((what) => what === 'read');
    const all = Promise.all([shown(device, 0, 100), shown(device, 0, 100), shown(device, 50, 100)]);
    await settled();
    expect(gate.waiting).toBe(3);
    gate.open();
    await all;
  });

  it('nobody starves: a write among reads without end, and a read among writes', async () => {
    const layer = await toyLayer({ size: 4 * CELL, pause: jitter(3) });
    const device = deviceOn([layer]);
    let isOver = false;
    const reader = async (): Promise<void> => {
      while (!isOver) await shown(device, 0, 2 * CELL);
    };
    const writer = async (): Promise<void> => {
      while (!isOver) await device.write(guestOffset(2 * CELL), bytes(CELL, 1));
    };
    const crowd = [reader(), reader(), reader(), writer(), writer(), writer()];
    for (let turn = 0; turn < 20; turn++) {
      await device.write(guestOffset(100), bytes(1000, turn));
      await shown(device, 2 * CELL, 10);
    }
    isOver = true;
    await Promise.all(crowd);
    expect((await cellsOf(device))[2]).toBe(1);
  });

  it('a failed request lets those behind it go on', async () => {
    const layer = await toyLayer({
      size: 4 * CELL,
      pause: (what) => (what === 'write' ? broken() : undefined),
    });
    let left = 1;
    const broken = (): void => {
      if (left-- > 0) throw new Error('bad sector');
    };
    const device = deviceOn([layer]);
    const first = watched(device.write(guestOffset(0), bytes(CELL, 1)));
    await device.write(guestOffset(0), bytes(CELL, 2));
    expect(first.state).toBe('Error: bad sector');
    expect((await cellsOf(device))[0]).toBe(2);
  });

  it('a signal takes effect when the turn comes, and the next one is not hindered', async () => {
    const [device, gate] = await slow((what) => what === 'write');
    const abort = new AbortController();
    const first = device.write(guestOffset(0), bytes(CELL, 1));
    const second = watched(device.write(guestOffset(0), bytes(CELL, 2), { signal: abort.signal }));
    abort.abort(new Error('enough'));
    gate.open();
    await first;
    const third = await shown(device, 0, 1);
    expect([second.state, third[0]]).toEqual(['Error: enough', 1]);
  });

  it('a write in a cell whose rest comes from below leaves that as it was, with writers beside it', async () => {
    const [base, top] = [
      await toyLayer({ size: 8 * CELL }),
      await toyLayer({ size: 8 * CELL, pause: jitter(5) }),
    ];
    await put(base, 4, 0, 1, 2);
    const device = deviceOn([base, top]);
    await Promise.all([3, 200, 500, 900].map((at) => device.write(guestOffset(at), bytes(50, 8))));
    const seen = await shown(device, 0, CELL);
    const changed = [...seen].filter((byte) => byte === 8).length;
    expect([changed, [...seen].filter((byte) => byte === 4).length]).toEqual([200, CELL - 200]);
  });
});
