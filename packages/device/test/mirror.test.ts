import { guestOffset } from '@downfold/units';
import { describe, expect, it } from 'vitest';
import type { MirrorOptions } from '../src/index.ts';
import { bytes, cellsOf, deviceOn, put, range, toyLayer } from './support.ts';
import { CELL } from './toy-image.ts';

const size = 8 * CELL;
const freely: MirrorOptions = { pass: async () => {}, copied: () => {} };

describe('a mirror', () => {
  it('makes its target show what was changed since its start, and then each change before it is acknowledged', async () => {
    const [base, top] = [await toyLayer({ size }), await toyLayer({ size })];
    await put(base, 0, 1);
    const device = deviceOn([base, top]);
    const mirror = device.mirror(base.image);
    await device.write(guestOffset(CELL), bytes(CELL, 2));
    expect(mirror.dirtyBytes).toBeGreaterThan(0);
    await mirror.converge(freely);
    expect(mirror.dirtyBytes).toBe(0);
    await device.write(guestOffset(2 * CELL), bytes(CELL, 3));
    await device.writeZeroes(range(0, CELL));
    const alone = deviceOn([base]);
    expect(await cellsOf(alone)).toEqual(await cellsOf(device));
    mirror.stop();
    await device.write(guestOffset(3 * CELL), bytes(CELL, 4));
    expect((await cellsOf(alone))[3]).toBe(0);
  });

  it('whose target fails lets it go: the request does not fail, the job is told', async () => {
    let isBroken = false;
    const fails = (what: string): void => {
      if (what === 'write' && isBroken) throw new Error('ENOSPC');
    };
    const [base, top] = [await toyLayer({ size, pause: fails }), await toyLayer({ size })];
    const device = deviceOn([base, top]);
    const mirror = device.mirror(base.image);
    await mirror.converge(freely);
    isBroken = true;
    await device.write(guestOffset(0), bytes(CELL, 1));
    expect(await mirror.broken).toEqual(new Error('ENOSPC'));
    await expect(mirror.finish(device)).rejects.toThrow('ENOSPC');
    await device.write(guestOffset(0), bytes(CELL, 2));
    expect((await cellsOf(device))[0]).toBe(2);
  });
});
