import { describe, expect, test } from 'vitest';
import { SharedMap, SharedMapReader } from '../src/index.ts';

const UNIT = 65_536;
const TIB = 2 ** 40;

function mapped(): { map: SharedMap; reader: SharedMapReader; place: number } {
  const map = new SharedMap();
  map.use(UNIT);
  const place = map.addReader() as number;
  return { map, reader: new SharedMapReader(map.buffer, place), place };
}

/** What a reader finds at a place; null: nothing. */
function found(reader: SharedMapReader, offset: number, end = offset + UNIT): unknown {
  reader.enter();
  const is = reader.find(offset, end);
  reader.leave();
  return is ? [reader.descriptor, reader.host, reader.length] : null;
}

describe('the map that threads share', () => {
  test('is empty at first, and knows whether it is read', () => {
    const { map, reader, place } = mapped();
    expect([map.isRead, found(reader, 0)]).toEqual([true, null]);
    map.removeReader(place);
    expect(map.isRead).toBe(false);
  });

  test('joins what follows one another in one file, and nothing else', async () => {
    const { map, reader } = mapped();
    await map.claim(0);
    map.put(0, 3 * UNIT, 7, 10 * UNIT);
    // follows on the disk, not in the file; then in another file; then zeros
    map.put(3 * UNIT, 4 * UNIT, 7, 20 * UNIT);
    map.put(4 * UNIT, 5 * UNIT, 8, 21 * UNIT);
    map.put(5 * UNIT, 7 * UNIT, null, 0);
    expect(found(reader, 512, 9 * UNIT)).toEqual([7, 10 * UNIT + 512, 3 * UNIT - 512]);
    expect(found(reader, 3 * UNIT, 9 * UNIT)).toEqual([7, 20 * UNIT, UNIT]);
    expect(found(reader, 4 * UNIT, 9 * UNIT)).toEqual([8, 21 * UNIT, UNIT]);
    expect(found(reader, 5 * UNIT, 9 * UNIT)).toEqual([null, 0, 2 * UNIT]);
    expect(found(reader, 7 * UNIT, 9 * UNIT)).toBe(null);
    // no further than asked
    expect(found(reader, 0, 1024)).toEqual([7, 10 * UNIT, 1024]);
  });

  test('holds places as far out as files reach, and leaves out what it cannot hold', async () => {
    const { map, reader } = mapped();
    await map.claim(0);
    const far = 1024 * TIB + 512;
    map.put(0, 2 * UNIT, 9, far);
    expect(found(reader, 0, 2 * UNIT)).toEqual([9, far, 2 * UNIT]);
    // a place that is no sector; a descriptor that has no room, or is the mark of zeros
    map.put(2 * UNIT, 3 * UNIT, 9, 100);
    map.put(3 * UNIT, 4 * UNIT, 0xf_ffff + 1, 0);
    map.put(4 * UNIT, 5 * UNIT, 0, 0);
    for (const unit of [2, 3, 4]) expect(found(reader, unit * UNIT)).toBe(null);
  });

  test('forgets what a range touches, and nothing beside it', async () => {
    const { map, reader } = mapped();
    await map.claim(0);
    map.put(0, 4 * UNIT, 7, 0);
    map.forget(UNIT + 512, 2 * UNIT + 1);
    expect([0, 1, 2, 3].map((unit) => found(reader, unit * UNIT) !== null)).toEqual([
      true,
      false,
      false,
      true,
    ]);
    map.forgetAll();
    expect(found(reader, 0)).toBe(null);
    expect(map.has(0)).toBe(false);
  });

  test('forgets of a range of any length what it holds, at the price of its slots', async () => {
    const { map, reader } = mapped();
    const near = 7 * map.windowBytes;
    const far = 5000 * map.windowBytes;
    for (const window of [near, far]) {
      await map.claim(window);
      map.put(window, window + UNIT, 7, 0);
    }
    expect([...map.windowsIn(near + UNIT, far)]).toEqual([near]);
    expect([...map.windowsIn(0, 2 ** 52)].toSorted((a, b) => a - b)).toEqual([near, far]);
    const began = performance.now();
    for (let count = 0; count < 100; count++) map.forget(near + UNIT, 2 ** 52);
    expect(performance.now() - began).toBeLessThan(1000);
    expect([found(reader, near), found(reader, far)]).toEqual([[7, 0, UNIT], null]);
  });

  test('a window that takes the slot of another one shows nothing of it', async () => {
    const { map, reader } = mapped();
    // as many windows as there are slots: the same slot again
    const other = 2048 * map.windowBytes;
    await map.claim(0);
    map.put(0, UNIT, 7, 0);
    await map.claim(other);
    expect([found(reader, 0), found(reader, other)]).toEqual([null, null]);
    map.put(other, other + UNIT, 7, UNIT);
    expect([found(reader, 0), found(reader, other)]).toEqual([null, [7, UNIT, UNIT]]);
    // and the end of a window is not the begin of what lies in the next slot
    expect(found(reader, other - UNIT, other + UNIT)).toBe(null);
  });

  test('who is inside is waited for; who comes later is not', async () => {
    const { map, reader } = mapped();
    expect(map.idle()).toBe(null);
    reader.enter();
    const done: string[] = [];
    const idle = Promise.resolve(map.idle()).then(() => done.push('idle'));
    const claimed = map.claim(0).then(() => done.push('claimed'));
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(done).toEqual([]);
    reader.leave();
    reader.enter();
    await Promise.all([idle, claimed]);
    reader.leave();
    expect(done.toSorted()).toEqual(['claimed', 'idle']);
  });

  test('a reader that died inside holds nobody up', async () => {
    const { map, reader, place } = mapped();
    reader.enter();
    map.removeReader(place);
    expect(map.idle()).toBe(null);
  });

  test('has 32 places for readers, which are used again', () => {
    const map = new SharedMap();
    const places = Array.from({ length: 32 }, () => map.addReader());
    expect(new Set(places).size).toBe(32);
    expect(map.addReader()).toBe(null);
    map.removeReader(5);
    expect(map.addReader()).toBe(5);
  });

  test('its unit is a power of two, from a sector', () => {
    const map = new SharedMap();
    for (const unit of [0, 256, 513, -512]) expect(() => map.use(unit)).toThrow(RangeError);
  });
});
