import { viewOf } from '@downfold/chain';
import { byteLength, guestOffset, rangeEnd } from '@downfold/units';
import { describe, expect, it } from 'vitest';
import { type Change, type Device, DirtyMap, type WriteObserver } from '../src/index.ts';
import { Fuzz } from './fuzz.ts';
import {
  bytes,
  deviceOn,
  expectCode,
  Gate,
  put,
  range,
  settled,
  shown,
  type ToyLayer,
  toyLayer,
  watched,
} from './support.ts';
import { CELL } from './toy-image.ts';

const size = 8 * CELL;

/** An observer that writes down what it is told. */
function noting(): { observer: WriteObserver; told: string[] } {
  const told: string[] = [];
  const noted = ({ kind, offset, length, source, failed }: Change): void =>
    void told.push(`${kind} ${offset} ${length} ${source?.[0] ?? '-'}${failed ? ' failed' : ''}`);
  return { told, observer: { mode: 'note', noted } };
}

describe('observers', () => {
  it('are told each change with its bytes, before it is acknowledged; the units that a discard did change', async () => {
    const device = deviceOn([await toyLayer({ size })]);
    const { observer, told } = noting();
    const stop = device.observe(observer);
    const write = device.write(guestOffset(5), bytes(7, 3)).then(() => told.push('acknowledged'));
    await write;
    await device.writeZeroes(range(CELL, 10));
    await device.discard(range(100, 3 * CELL));
    await device.discard(range(100, 100));
    await device.write(guestOffset(5), bytes(0, 0));
    expect(told).toEqual(['write 5 7 3', 'acknowledged', 'zero 1024 10 -', 'discard 1024 2048 -']);
    stop();
    await device.write(guestOffset(5), bytes(7, 3));
    expect(told.length).toBe(4);
  });

  it('are told after the change is in the active layer: who clears a bit and then reads misses nothing', async () => {
    const gate = new Gate((what) => what === 'write');
    const layer = await toyLayer({ size, pause: gate.pause });
    const device = deviceOn([layer]);
    const { observer, told } = noting();
    device.observe(observer);
    const write = device.write(guestOffset(0), bytes(CELL, 3));
    await settled();
    expect(told).toEqual([]);
    gate.open();
    await write;
    expect(told).toEqual(['write 0 1024 3']);
  });

  it('are told that a failed change may have changed its range', async () => {
    const layer = await toyLayer({
      size,
      pause: (what, offset) => (what === 'write' && offset > 0 ? broken() : undefined),
    });
    const broken = (): never => {
      throw new Error('bad sector');
    };
    const device = deviceOn([layer]);
    const { observer, told } = noting();
    device.observe(observer);
    await expect(device.write(guestOffset(0), bytes(CELL, 3))).rejects.toThrow('bad sector');
    expect(told).toEqual(['write 0 1024 - failed']);
  });

  it('that block are waited for: the request, and others of the same bytes; not those of other bytes', async () => {
    const device = deviceOn([await toyLayer({ size })]);
    const end = Promise.withResolvers<void>();
    const told: number[] = [];
    device.observe({
      mode: 'block',
      onFailure: 'fail-request',
      changed: async ({ offset, source }) => {
        told.push(source?.[0] ?? -1);
        if (offset === 0) await end.promise;
      },
    });
    const all = [
      device.write(guestOffset(0), bytes(CELL, 1)),
      device.write(guestOffset(512), bytes(10, 2)),
      shown(device, 0, 1),
      device.write(guestOffset(CELL), bytes(10, 3)),
      device.drained(async () => {}),
    ].map(watched);
    await settled();
    expect(all.map(({ state }) => state)).toEqual(['waits', 'waits', 'waits', 'done', 'waits']);
    expect(told).toEqual([1, 3]);
    end.resolve();
    await settled();
    expect(all.map(({ state }) => state)).toEqual(Array(5).fill('done'));
    expect(told).toEqual([1, 3, 2]);
  });

  it('whose promise is rejected fail the request, or leave: as they said', async () => {
    const layer = await toyLayer({ size });
    const device = deviceOn([layer]);
    const gone: unknown[] = [];
    const changed = (): Promise<void> => Promise.reject(new Error('target full'));
    const stop = device.observe({ mode: 'block', onFailure: 'fail-request', changed });
    await expect(device.write(guestOffset(0), bytes(1, 7), { fua: true })).rejects.toMatchObject({
      code: 'DEVICE_OBSERVER_FAILED',
      cause: new Error('target full'),
    });
    expect(layer.image.flushes).toBe(0);
    await expectCode(device.write(guestOffset(0), bytes(1, 7)), 'DEVICE_OBSERVER_FAILED');
    stop();
    device.observe({
      mode: 'block',
      onFailure: 'detach',
      changed,
      detached: (cause) => gone.push(cause),
    });
    await Promise.all([
      device.write(guestOffset(0), bytes(1, 8)),
      device.write(guestOffset(CELL), bytes(1, 8)),
    ]);
    await device.write(guestOffset(0), bytes(1, 9));
    expect(gone).toEqual([new Error('target full')]);
    expect((await shown(device, 0, 1))[0]).toBe(9);
  });
});

/** Copies what is dirty down, chunk by chunk, while no request changes the chunk. */
async function copyDirty(device: Device, dirty: DirtyMap, target: ToyLayer): Promise<void> {
  for (let run = dirty.next(guestOffset(0), CELL); run; run = dirty.next(guestOffset(0), CELL)) {
    const chunk = run;
    dirty.clear(chunk);
    await device.holding(chunk, 'changes', async (layers) => {
      const content = new Uint8Array(chunk.length);
      await viewOf(layers, layers.length - 1)(chunk.offset, content);
      await target.image.write(chunk.offset, content, { fill: null });
    });
  }
}

describe('an active commit made of these parts', () => {
  it.each([21, 22, 23])(
    'copies in the background, then blocks, then pivots, under load: seed %i',
    async (seed) => {
      const fuzz = await Fuzz.on(3, seed);
      const { device } = fuzz;
      const target = await toyLayer({ size: device.size });
      const dirty = new DirtyMap(byteLength(device.size), CELL);
      dirty.set(range(0, device.size));
      const load = fuzz.run(400);
      const stop = device.observe({ mode: 'note', noted: (change) => dirty.set(change) });
      for (let pass = 0; pass < 3; pass++) await copyDirty(device, dirty, target);
      const mirror = device.observe({
        mode: 'block',
        onFailure: 'fail-request',
        changed: async (change) => {
          if (change.source === null) await target.image.writeZeroes(change, { fill: null });
          else await target.image.write(change.offset, change.source, { fill: null });
        },
      });
      stop();
      await copyDirty(device, dirty, target);
      expect(dirty.next(guestOffset(0))).toBeNull();
      await device.drained(async (section) => {
        await section.replace([target], { close: true });
        mirror();
      });
      await load;
      expect(rangeEnd(range(0, device.size))).toBe(target.image.geometry.virtualSize);
      await fuzz.finish();
      expect(fuzz.mistakes).toEqual([]);
    },
  );
});

describe('a write-blocking observer and a background copy of the same bytes', () => {
  it('do not undo each other: what holds a range keeps changes out', async () => {
    const [active, target] = [await toyLayer({ size }), await toyLayer({ size })];
    await put(active, 1, 0);
    const device = deviceOn([active]);
    device.observe({
      mode: 'block',
      onFailure: 'fail-request',
      changed: ({ offset, source }) =>
        target.image.write(offset, source ?? bytes(0, 0), { fill: null }),
    });
    const copied = device.holding(range(0, CELL), 'changes', async () => {
      const old = new Uint8Array(CELL);
      await active.image.read(guestOffset(0), old, null);
      await settled();
      await target.image.write(guestOffset(0), old, { fill: null });
    });
    await Promise.all([copied, device.write(guestOffset(0), bytes(CELL, 2))]);
    const seen = new Uint8Array(1);
    await target.image.read(guestOffset(0), seen, null);
    expect(seen[0]).toBe(2);
  });
});
