import { guestOffset } from '@downfold/units';
import { describe, expect, it } from 'vitest';
import type { BlockStatus, Device } from '../src/index.ts';
import {
  bytes,
  cellsOf,
  collected,
  deviceOn,
  expectCode,
  jitter,
  put,
  range,
  shown,
  toyLayer,
} from './support.ts';
import { CELL } from './toy-image.ts';

const size = 4 * CELL;

describe('bounds', () => {
  it('any byte range inside is taken, the last byte too; none past the end', async () => {
    const device = deviceOn([await toyLayer({ size: size - 3 })]);
    const last = size - 4;
    await device.write(guestOffset(last), bytes(1, 7));
    expect([...(await shown(device, last - 1, 2))]).toEqual([0, 7]);
    for (const work of [
      device.write(guestOffset(last), bytes(2, 7)),
      device.read(guestOffset(size), bytes(1, 0)),
      device.writeZeroes(range(last, 2)),
      device.discard(range(0, size)),
      device.blockStatus(range(last, 2)).next(),
      device.holding(range(last, 2), 'changes', async () => {}),
    ])
      await expectCode(work, 'DEVICE_RANGE');
  });

  it('requests of nothing do nothing, at the end of the disk too, and wait for nobody', async () => {
    const layer = await toyLayer({ size, pause: () => Promise.reject(new Error('touched')) });
    const device = deviceOn([layer]);
    for (const at of [0, size]) {
      await device.read(guestOffset(at), bytes(0, 0));
      await device.write(guestOffset(at), bytes(0, 0), { fua: true });
      await device.writeZeroes(range(at, 0));
      await device.discard(range(at, 0));
    }
    const batches = await collected(device.blockStatus(range(0, 0)));
    expect(batches).toEqual([]);
    await expectCode(device.write(guestOffset(size + 1), bytes(0, 0)), 'DEVICE_RANGE');
  });

  it('a disk for reading refuses changes and takes all else', async () => {
    const [base, writable] = [await toyLayer({ size, writable: false }), await toyLayer({ size })];
    for (const device of [deviceOn([base]), deviceOn([writable], { readOnly: true })]) {
      expect(device.readOnly).toBe(true);
      for (const work of [
        device.write(guestOffset(0), bytes(1, 1)),
        device.write(guestOffset(0), bytes(0, 1)),
        device.writeZeroes(range(0, 1)),
        device.discard(range(0, 1)),
        device.resize(writable.image.geometry.virtualSize),
      ])
        await expectCode(work, 'DEVICE_READ_ONLY');
      await device.flush();
      expect(await cellsOf(device)).toEqual([0, 0, 0, 0]);
      await device.close();
    }
  });
});

describe('zeros and discards', () => {
  it('hide what lies below; as data when space must be there', async () => {
    const [base, top] = [await toyLayer({ size }), await toyLayer({ size, isBacked: true })];
    await put(base, 1, 0, 1, 2, 3);
    const device = deviceOn([base, top]);
    await device.writeZeroes(range(0, CELL));
    await device.writeZeroes(range(CELL, CELL), { mayUnmap: false });
    await device.discard(range(2 * CELL - 1, CELL + 1));
    expect(top.image.cells).toBe('zdz-');
    expect(await cellsOf(device)).toEqual([0, 0, 0, 1]);
  });

  it('the lowest layer deallocates what is discarded, unless it says that something lies below', async () => {
    for (const [isBacked, cells] of [
      [false, '-'],
      [true, 'z'],
    ] as const) {
      const layer = await toyLayer({ size: CELL - 24, isBacked });
      await put(layer, 1, 0);
      const device = deviceOn([layer]);
      await device.discard(range(0, CELL - 24));
      expect(layer.image.cells).toBe(cells);
      expect(await cellsOf(device)).toEqual([0]);
    }
  });

  it('as data end between two pieces when nobody wants them any more, whether or not the format looks', async () => {
    const layer = await toyLayer({ size: 4 << 20, unit: 1 });
    const unwanted = new AbortController();
    let pieces = 0;
    layer.image.write = async () => {
      if (++pieces === 2) unwanted.abort(new Error('nobody waits'));
    };
    const device = deviceOn([layer]);
    const { signal } = unwanted;
    const zeros = device.writeZeroes(range(0, 4 << 20), { mayUnmap: false, signal });
    await expect(zeros).rejects.toThrow('nobody waits');
    expect(pieces).toBe(2);
  });

  it('where they are no metadata, fast zeros are refused and discards do nothing', async () => {
    const plain = await toyLayer({ size, unit: 1 });
    await put(plain, 1, 0, 1);
    const device = deviceOn([plain]);
    await expectCode(device.writeZeroes(range(0, CELL), { fast: true }), 'DEVICE_UNSUPPORTED');
    await device.discard(range(0, CELL));
    expect(await cellsOf(device)).toEqual([1, 1, 0, 0]);
    // it has units, and no zeros above a backing file
    const old = await toyLayer({ size, zeroesAsData: true });
    await put(old, 1, 0, 1);
    const dull = deviceOn([old]);
    await expectCode(dull.writeZeroes(range(0, CELL), { fast: true }), 'DEVICE_UNSUPPORTED');
    await dull.discard(range(0, CELL));
    expect(await cellsOf(dull)).toEqual([1, 1, 0, 0]);
    const told = deviceOn([plain], { zeroesByMetadata: () => true });
    await expectCode(
      told.writeZeroes(range(0, CELL), { fast: true, mayUnmap: false }),
      'DEVICE_UNSUPPORTED',
    );
    await told.writeZeroes(range(0, CELL), { fast: true });
    expect(await cellsOf(told)).toEqual([0, 1, 0, 0]);
  });
});

describe('block status', () => {
  const flat = async (
    device: Device,
    ...args: Parameters<Device['blockStatus']>
  ): Promise<string[]> => {
    const batches = await collected(device.blockStatus(...args));
    expect(batches.every((batch) => batch.length > 0)).toBe(true);
    return batches.flat().map(text);
  };
  const text = ({ offset, length, hole, zero, depth }: BlockStatus): string =>
    `${offset / CELL}+${length / CELL}${hole ? ' hole' : ''}${zero ? ' zero' : ''} ${depth}`;

  async function chained(): Promise<Device> {
    const [base, middle, top] = [
      await toyLayer({ size: 8 * CELL, pause: jitter(1) }),
      await toyLayer({ size: 6 * CELL }),
      await toyLayer({ size: 8 * CELL }),
    ];
    await put(base, 1, 0, 1, 2, 7);
    await put(middle, 2, 1);
    const device = deviceOn([base, middle, top]);
    await device.write(guestOffset(2 * CELL), bytes(2 * CELL, 3));
    await device.writeZeroes(range(4 * CELL, CELL));
    return device;
  }

  it('tells holes, zeros and the depth that decides; joined; a short layer owns the zeros past its end', async () => {
    const device = await chained();
    expect(await flat(device, range(0, 8 * CELL))).toEqual([
      '0+1 3',
      '1+1 2',
      '2+2 1',
      '4+1 hole zero 1',
      '5+1 hole zero 0',
      '6+2 hole zero 2',
    ]);
    expect(await flat(device, range(2.5 * CELL, 2 * CELL))).toEqual([
      '2.5+1.5 1',
      '4+0.5 hole zero 1',
    ]);
  });

  it('ends after as many as are wanted, each in full', async () => {
    const device = await chained();
    for (const limit of [0, 1, 3, 6, 100]) {
      const all = await flat(device, range(0, 8 * CELL));
      expect(await flat(device, range(0, 8 * CELL), { limit })).toEqual(all.slice(0, limit));
    }
  });

  it('comes in batches, joined across them, and lets a section in between', async () => {
    const cells = 5000;
    const layer = await toyLayer({ size: cells * CELL });
    await put(layer, 1, ...Array.from({ length: cells / 2 }, (_, index) => index * 2));
    const device = deviceOn([layer]);
    const statuses = device.blockStatus(range(0, cells * CELL));
    const first = (await statuses.next()).value as readonly BlockStatus[];
    expect(first.length).toBeLessThan(cells / 2);
    await device.drained(async () => {});
    const rest = (await collected(statuses)).flat();
    expect(first.length + rest.length).toBe(cells);
    await device.writeZeroes(range(0, cells * CELL));
    expect(await flat(device, range(0, cells * CELL))).toEqual([`0+${cells} hole zero 1`]);
  });
});
