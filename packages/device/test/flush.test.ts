import { StorageError } from '@downfold/storage';
import { guestOffset } from '@downfold/units';
import { describe, expect, it } from 'vitest';
import {
  bytes,
  deviceOn,
  expectCode,
  Gate,
  put,
  range,
  settled,
  shown,
  toyLayer,
  watched,
} from './support.ts';
import { CELL } from './toy-image.ts';

const size = 8 * CELL;

describe('flush', () => {
  it('reaches every layer that is open for writing, the lower ones first, whoever wrote it', async () => {
    const order: string[] = [];
    const note = (name: string) => (what: string) => {
      if (what === 'flush') order.push(name);
    };
    const [base, middle, top] = [
      await toyLayer({ size, pause: note('base') }),
      await toyLayer({ size, pause: note('middle'), writable: false }),
      await toyLayer({ size, pause: note('top') }),
    ];
    await put(base, 3, 1);
    const device = deviceOn([base, middle, top]);
    await device.flush();
    expect(order).toEqual(['base', 'top']);
  });

  it('stops at the first that fails: what lies above must not be durable without it', async () => {
    const fails = (what: string): void => {
      if (what === 'flush') throw new StorageError('STORAGE_FLUSH_FAILED', 'disk gone');
    };
    const [base, top] = [await toyLayer({ size, pause: fails }), await toyLayer({ size })];
    const device = deviceOn([base, top]);
    await expectCode(device.flush(), 'DEVICE_FLUSH_FAILED');
    expect(top.image.flushes).toBe(0);
  });

  it('that the host had no room for may be tried again', async () => {
    let isFull = true;
    const fails = (what: string): void => {
      if (what === 'flush' && isFull) throw new StorageError('STORAGE_NO_SPACE', 'full');
    };
    const layer = await toyLayer({ size, pause: fails });
    const device = deviceOn([layer]);
    await device.write(guestOffset(0), bytes(CELL, 1));
    await expectCode(device.flush(), 'STORAGE_NO_SPACE');
    expect(device.isSound).toBe(true);
    await device.write(guestOffset(CELL), bytes(CELL, 2));
    isFull = false;
    await device.flush();
    expect(layer.image.flushes).toBe(2);
  });

  it('that the host had no room for does not close the disk: it can be closed later', async () => {
    let isFull = true;
    const fails = (what: string): void => {
      if (what === 'flush' && isFull) throw new StorageError('STORAGE_NO_SPACE', 'full');
    };
    const layer = await toyLayer({ size, pause: fails });
    const device = deviceOn([layer]);
    await expectCode(device.close(), 'STORAGE_NO_SPACE');
    await device.write(guestOffset(0), bytes(CELL, 1));
    isFull = false;
    await device.close();
    expect(layer.image.flushes).toBe(2);
    await expectCode(device.write(guestOffset(0), bytes(CELL, 1)), 'DEVICE_CLOSED');
  });

  it('that failed is final for changes and flushes, also those that wait, though the next one would work; reads go on', async () => {
    let isBroken = true;
    const gate = new Gate((what) => what === 'flush');
    const layer = await toyLayer({
      size,
      pause: async (what, offset) => {
        await gate.pause(what, offset);
        if (what === 'flush' && isBroken) throw new Error('EIO');
      },
    });
    const other = await toyLayer({ size });
    const device = deviceOn([layer]);
    await device.write(guestOffset(0), bytes(CELL, 1));
    const all = [
      device.flush(),
      device.flush(),
      device.write(guestOffset(0), bytes(1, 2), { fua: true }),
    ];
    const behind = watched(device.write(guestOffset(0), bytes(1, 3)));
    const seen = all.map(watched);
    await settled();
    gate.open();
    await settled();
    isBroken = false;
    expect(seen.map(({ state }) => state)).toEqual(Array(3).fill('DEVICE_FLUSH_FAILED'));
    expect(behind.state).toBe('DEVICE_FLUSH_FAILED');
    for (const work of [
      device.flush(),
      device.write(guestOffset(0), bytes(1, 1)),
      device.writeZeroes(range(0, 1)),
      device.discard(range(0, CELL)),
      device.resize(layer.image.geometry.virtualSize),
      device.drained((section) => section.flush()),
      device.drained((section) => section.replace([layer, other])),
    ])
      await expectCode(work, 'DEVICE_FLUSH_FAILED');
    await expect(device.flush()).rejects.toMatchObject({
      message: expect.stringContaining(layer.image.label),
      cause: new Error('EIO'),
    });
    expect((await shown(device, 1, 1))[0]).toBe(1);
    await device.close();
  });

  it('a closing whose flush fails says so', async () => {
    const fails = (what: string): void => {
      if (what === 'flush') throw new Error('EIO');
    };
    const device = deviceOn([await toyLayer({ size, pause: fails })]);
    await expectCode(device.close(), 'DEVICE_FLUSH_FAILED');
    await expectCode(shown(device, 0, 1), 'DEVICE_CLOSED');
  });

  it('leaves out a layer that a job flushes, but never the active one', async () => {
    const fails = (what: string): void => {
      if (what === 'flush') throw new Error('target gone');
    };
    const [base, middle, top] = [
      await toyLayer({ size, pause: fails }),
      await toyLayer({ size }),
      await toyLayer({ size }),
    ];
    const device = deviceOn([base, middle, top]);
    const end = device.exemptFromFlush(base.image);
    device.exemptFromFlush(middle.image);
    device.exemptFromFlush(top.image);
    await device.flush();
    expect([base, middle, top].map(({ image }) => image.flushes)).toEqual([0, 0, 1]);
    await device.drained((section) => section.replace([base, middle]));
    await device.flush();
    expect([base, middle, top].map(({ image }) => image.flushes)).toEqual([0, 1, 2]);
    end();
    await expectCode(device.flush(), 'DEVICE_FLUSH_FAILED');
  });

  it('many at once are joined: those that ask while one runs share the next', async () => {
    const gate = new Gate((what) => what === 'flush');
    const layer = await toyLayer({ size, pause: gate.pause });
    const device = deviceOn([layer]);
    const first = device.flush();
    await settled();
    await device.write(guestOffset(0), bytes(1, 1));
    const rest = [device.flush(), device.flush(), device.flush()].map(watched);
    await settled();
    expect(layer.image.flushes).toBe(1);
    gate.open();
    await first;
    await settled();
    expect(rest.map(({ state }) => state)).toEqual(['done', 'done', 'done']);
    expect(layer.image.flushes).toBe(2);
  });

  it('does not wait for writes', async () => {
    const gate = new Gate((what) => what === 'write');
    const device = deviceOn([await toyLayer({ size, pause: gate.pause })]);
    const write = device.write(guestOffset(0), bytes(1, 1));
    await device.flush();
    gate.open();
    await write;
  });

  it('fua flushes the active layer after the change, and only then resolves', async () => {
    const order: string[] = [];
    const pause = (what: string): void => void order.push(what);
    const [base, top] = [await toyLayer({ size }), await toyLayer({ size, pause })];
    const device = deviceOn([base, top]);
    await device.write(guestOffset(0), bytes(CELL, 1), { fua: true });
    expect(order.at(-1)).toBe('flush');
    await device.writeZeroes(range(0, CELL), { fua: true });
    await device.discard(range(CELL, CELL), { fua: true });
    expect([base.image.flushes, top.image.flushes]).toEqual([0, 3]);
  });
});
