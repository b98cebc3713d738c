import { byteLength, guestOffset } from '@downfold/units';
import { describe, expect, it } from 'vitest';
import { mergeDown } from './fuzz.ts';
import {
  bytes,
  cellsOf,
  deviceOn,
  expectCode,
  Gate,
  put,
  range,
  settled,
  toyLayer,
} from './support.ts';
import { CELL } from './toy-image.ts';

const size = 4 * CELL;

describe('replace', () => {
  it('puts an overlay on top: held writes go there, what lies below is not written any more', async () => {
    const [base, overlay] = [await toyLayer({ size }), await toyLayer({ size })];
    const device = deviceOn([base]);
    await device.write(guestOffset(0), bytes(CELL, 1));
    const section = device.drained(({ layers }) => Promise.resolve(layers));
    const swap = device.drained((own) => own.replace([...own.layers, overlay]));
    const held = device.write(guestOffset(CELL), bytes(CELL, 2));
    expect((await section).value).toEqual([base]);
    expect((await swap).held).toBe(1);
    await held;
    expect([base.image.cells, overlay.image.cells]).toEqual(['d---', '-d--']);
    expect(await cellsOf(device)).toEqual([1, 2, 0, 0]);
    expect(device.layers).toEqual([base, overlay]);
  });

  it('drops a subchain, though requests came before and come after', async () => {
    const gate = new Gate((what) => what === 'write');
    const [base, middle, top] = [
      await toyLayer({ size }),
      await toyLayer({ size }),
      await toyLayer({ size, pause: gate.pause }),
    ];
    await put(base, 1, 0, 1, 2);
    await put(middle, 2, 1, 2);
    const device = deviceOn([base, middle, top]);
    const before = device.write(guestOffset(2 * CELL), bytes(CELL, 3));
    const drop = device.drained(async (section) => {
      await mergeDown(section.layers, 1);
      await section.replace([base, top], { close: true });
    });
    const after = device.write(guestOffset(3 * CELL), bytes(CELL, 4));
    await settled();
    gate.open();
    await Promise.all([before, drop, after]);
    expect(await cellsOf(device)).toEqual([1, 2, 3, 4]);
    expect([base.image.isClosed, middle.image.isClosed, top.image.isClosed]).toEqual([
      false,
      true,
      false,
    ]);
  });

  it('pivots; images that leave are flushed and stay open, those that cannot be written are not flushed', async () => {
    const [base, reader, top] = [
      await toyLayer({ size }),
      await toyLayer({ size, writable: false }),
      await toyLayer({ size }),
    ];
    const device = deviceOn([base, reader, top]);
    await device.write(guestOffset(0), bytes(1, 1));
    await device.drained((section) => section.replace([base]));
    expect([top.image.flushes, reader.image.flushes, base.image.flushes]).toEqual([1, 0, 0]);
    expect([top.image.isClosed, reader.image.isClosed]).toEqual([false, false]);
    await device.write(guestOffset(0), bytes(CELL, 5));
    expect([base.image.cells, top.image.cells]).toEqual(['d---', 'd---']);
  });

  it('does not replace when the flush of what leaves fails', async () => {
    const [base, top] = [
      await toyLayer({ size }),
      await toyLayer({
        size,
        pause: (what) => {
          if (what === 'flush') throw new Error('EIO');
        },
      }),
    ];
    await put(top, 1, 0);
    const device = deviceOn([base, top]);
    await expectCode(
      device.drained((section) => section.replace([base])),
      'DEVICE_FLUSH_FAILED',
    );
    expect(device.layers).toEqual([base, top]);
    expect((await cellsOf(device))[0]).toBe(1);
  });

  it('refuses what cannot be the disk, and leaves it as it was', async () => {
    const top = await toyLayer({ size });
    const device = deviceOn([top]);
    const small = await toyLayer({ size: size - 1 });
    const reader = await toyLayer({ size, writable: false });
    for (const layers of [[], [small], [reader], [top, top]])
      await expectCode(
        device.drained((section) => section.replace(layers)),
        'DEVICE_BAD_CHAIN',
      );
    expect(device.layers).toEqual([top]);
    expect(() => deviceOn([])).toThrow('layers');
    expect(() => deviceOn([reader], { readOnly: false })).toThrow('reading only');
    const forReading = deviceOn([reader]);
    await forReading.drained((section) => section.replace([reader, top]));
    expect(forReading.readOnly).toBe(true);
  });

  it('lets a disk for reading take changes, once its active layer is open for writing', async () => {
    const [reader, writer] = [await toyLayer({ size, writable: false }), await toyLayer({ size })];
    const device = deviceOn([reader]);
    const replace = (layer: typeof reader): Promise<unknown> =>
      device.drained((section) => section.replace([layer], { takesChanges: true }));
    await expectCode(replace(reader), 'DEVICE_BAD_CHAIN');
    expect(device.readOnly).toBe(true);
    await replace(writer);
    expect(device.readOnly).toBe(false);
    await device.write(guestOffset(0), bytes(CELL, 1));
    expect(await cellsOf(device)).toEqual([1, 0, 0, 0]);
  });

  it('grows the disk with a larger active layer', async () => {
    const [base, overlay] = [await toyLayer({ size }), await toyLayer({ size: 2 * size })];
    await put(base, 1, 3);
    const device = deviceOn([base]);
    await device.drained((section) => section.replace([base, overlay]));
    expect(device.size).toBe(2 * size);
    expect(await cellsOf(device)).toEqual([0, 0, 0, 1, 0, 0, 0, 0]);
  });
});

describe('resize', () => {
  it('is seen by later requests, waits for earlier ones, and shows nothing of a longer layer below', async () => {
    const [base, top] = [await toyLayer({ size: 2 * size }), await toyLayer({ size: size - 100 })];
    await put(base, 1, 3, 4, 5);
    const device = deviceOn([base, top]);
    const before = device.write(guestOffset(0), bytes(CELL, 2));
    const resized = device.resize(byteLength(2 * size - 7));
    await expectCode(device.write(guestOffset(size), bytes(CELL, 9)), 'DEVICE_RANGE');
    await Promise.all([before, resized]);
    expect([device.size, top.image.geometry.virtualSize]).toEqual([2 * size - 7, 2 * size - 7]);
    expect(await cellsOf(device)).toEqual([2, 0, 0, 1, 0, 0, 0, 0]);
    await device.write(guestOffset(2 * size - 8), bytes(1, 3));
  });

  it('costs no explicit zeros where what lies below does not reach past the old end; refuses to shrink', async () => {
    const [base, top] = [await toyLayer({ size }), await toyLayer({ size })];
    const device = deviceOn([base, top]);
    await device.resize(byteLength(2 * size));
    expect(top.image.cells).toBe('--------');
    await expectCode(device.resize(byteLength(size)), 'DEVICE_UNSUPPORTED');
    expect(device.size).toBe(2 * size);
    const { value } = await device.drained(async () => {
      await device.resize(byteLength(3 * size));
      return device.size;
    });
    expect(value).toBe(3 * size);
  });
});

describe('short layers', () => {
  it('are zeros past their end and hide what lies below, for reads and for copy-on-write, to the byte', async () => {
    const short = 2 * CELL + 100;
    const [base, middle, top] = [
      await toyLayer({ size }),
      await toyLayer({ size: short }),
      await toyLayer({ size }),
    ];
    await put(base, 1, 0, 1, 2, 3);
    const device = deviceOn([base, middle, top]);
    const whole = new Uint8Array(size);
    const expected = new Uint8Array(size).fill(1, 0, short);
    await device.read(guestOffset(0), whole);
    expect(whole).toEqual(expected);
    // completes the cell that the end of the layer cuts
    await device.write(guestOffset(3 * CELL - 1), bytes(2, 9));
    expected.fill(9, 3 * CELL - 1, 3 * CELL + 1);
    await device.read(guestOffset(0), whole);
    expect(whole).toEqual(expected);
    await device.writeZeroes(range(short - 1, 1));
    expected[short - 1] = 0;
    await device.read(guestOffset(0), whole);
    expect(whole).toEqual(expected);
  });
});
