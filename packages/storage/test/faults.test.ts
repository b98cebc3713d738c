import { byteLength, hostOffset } from '@downfold/units';
import { expect, test } from 'vitest';
import { type FaultRule, type FaultyDriver, faulty } from '../src/faults/index.ts';
import { openBackend, type Storage } from '../src/index.ts';
import { flatBackend } from './flat-backend.ts';

const at = hostOffset;

async function opened(
  ...rules: readonly FaultRule[]
): Promise<{ driver: FaultyDriver; file: Storage; other: Storage }> {
  const driver = faulty(flatBackend());
  const backend = openBackend(driver);
  const file = await backend.create('/file', { secret: false });
  const other = await backend.create('/other', { secret: false });
  for (const rule of rules) driver.inject(rule);
  return { driver, file, other };
}

test('a rule without a word about it fails the first operation, once, with STORAGE_IO', async () => {
  const { driver, file } = await opened({});
  await expect(file.write(at(0), new Uint8Array(8), { what: 'l2' })).rejects.toMatchObject({
    code: 'STORAGE_IO',
    message: "/file: injected fault in write of 'l2'",
    details: { file: '/file', operation: 'write', name: 'l2' },
  });
  expect(await file.length()).toBe(0);
  await file.write(at(0), new Uint8Array(8));
  expect(driver.fired).toEqual([{ operation: 'write', file: '/file', name: 'l2' }]);
});

test('a rule counts only what it matches: operation, name and file', async () => {
  const { driver, file, other } = await opened({
    operation: 'write',
    name: /^l[12]$/,
    file: '/file',
    nth: 2,
    code: 'STORAGE_NO_SPACE',
  });
  const bytes = new Uint8Array(8);
  await file.write(at(0), bytes, { what: 'l1' });
  await file.write(at(0), bytes, { what: 'data' });
  await other.write(at(0), bytes, { what: 'l1' });
  await file.writeZeroes({ offset: at(0), length: byteLength(8) }, { what: 'l1' });
  expect(driver.fired).toEqual([]);
  await expect(file.write(at(0), bytes, { what: 'l2' })).rejects.toMatchObject({
    code: 'STORAGE_NO_SPACE',
  });
  await file.write(at(0), bytes, { what: 'l2' });
});

test('times: so many in a row, or all from there on, until the rules are cleared', async () => {
  const { driver, file } = await opened({ operation: 'read', nth: 2, times: 2 });
  const outcomes: boolean[] = [];
  const read = async (): Promise<void> => {
    outcomes.push(
      await file.read(at(0), new Uint8Array(1)).then(
        () => true,
        () => false,
      ),
    );
  };
  for (let count = 0; count < 5; count++) await read();
  expect(outcomes.splice(0)).toEqual([true, false, false, true, true]);
  driver.clear();
  driver.inject({ operation: 'read', nth: 2, times: Number.POSITIVE_INFINITY });
  for (let count = 0; count < 4; count++) await read();
  expect(outcomes.splice(0)).toEqual([true, false, false, false]);
  driver.clear();
  await read();
  expect(outcomes).toEqual([true]);
});

test('when several rules are due, the oldest decides, and all have counted', async () => {
  const { file } = await opened(
    { operation: 'read', code: 'STORAGE_NO_SPACE' },
    { operation: 'read', code: 'STORAGE_ACCESS' },
    { operation: 'read', nth: 2, code: 'STORAGE_IO' },
  );
  const read = (): Promise<void> => file.read(at(0), new Uint8Array(1));
  await expect(read()).rejects.toMatchObject({ code: 'STORAGE_NO_SPACE' });
  await expect(read()).rejects.toMatchObject({ code: 'STORAGE_IO' });
  await read();
});

test('done: nothing, half or all of the bytes before it fails', async () => {
  for (const [done, length] of [
    ['nothing', 0],
    ['half', 500],
    ['all', 1001],
  ] as const) {
    const rule: FaultRule = { operation: 'write', done };
    const { driver, file, other } = await opened(rule);
    await expect(file.write(at(0), new Uint8Array(1001).fill(7))).rejects.toThrow('injected');
    expect(await file.length()).toBe(length);
    driver.inject({ operation: 'copyFrom', done });
    await file.write(at(0), new Uint8Array(1001).fill(7));
    await expect(
      other.copyFrom([{ source: file, from: at(0), to: at(0), length: byteLength(1001) }]),
    ).rejects.toThrow('injected');
    expect(await other.length()).toBe(length);
  }
});

test('done: all, of an operation without bytes: it happens, only the answer is lost', async () => {
  const driver = faulty(flatBackend());
  const backend = openBackend(driver);
  await backend.create('/a', { secret: false });
  for (const [done, name] of [
    ['nothing', 'a'],
    ['half', 'a'],
    ['all', 'b'],
  ] as const) {
    driver.inject({ operation: 'rename', done });
    await expect(backend.rename('/a', '/b')).rejects.toThrow('injected fault in rename');
    expect(await backend.list('/')).toEqual([{ name, kind: 'file' }]);
  }
});

test('copies stay inside the wrapped driver', async () => {
  const { driver, file, other } = await opened();
  await file.write(at(0), new Uint8Array(1000).fill(7));
  await other.copyFrom([{ source: file, from: at(0), to: at(0), length: byteLength(1000) }]);
  expect(driver.counts).toEqual({ create: 2, write: 1, copyFrom: 1 });
});

test('a failed flush is final for its file, also when the fault is over', async () => {
  const { file, other } = await opened({ operation: 'flush', name: 'W6' });
  await file.flush('W1');
  await expect(file.flush('W6')).rejects.toMatchObject({ code: 'STORAGE_FLUSH_FAILED' });
  await expect(file.flush('W6')).rejects.toMatchObject({ code: 'STORAGE_FLUSH_FAILED' });
  await other.flush('W6');
});

test('a close that fails still closes', async () => {
  const { driver, file } = await opened({ operation: 'close' });
  await expect(file[Symbol.asyncDispose]()).rejects.toThrow('injected fault in close');
  expect(driver.counts.close).toBe(1);
  await expect(file.length()).rejects.toMatchObject({ code: 'STORAGE_CLOSED' });
});

test('a loop over n meets every operation of a piece of work once, and ends', async () => {
  const work = async (driver: FaultyDriver): Promise<void> => {
    const backend = openBackend(driver);
    await using file = await backend.create('/new', { secret: true });
    await file.write(at(0), new Uint8Array(10), { what: 'header' });
    await file.flush('W1');
    await backend.rename('/new', '/old');
    await backend.flushDirectory('/', 'names');
    await backend.facts('/old');
  };
  const met: string[] = [];
  for (let nth = 1; ; nth++) {
    const driver = faulty(flatBackend(), [{ nth }]);
    const failed = await work(driver).then(
      () => false,
      () => true,
    );
    if (driver.fired.length === 0) break;
    expect(failed).toBe(true);
    met.push(...driver.fired.map(({ operation }) => operation));
  }
  expect(met).toEqual(['create', 'write', 'flush', 'rename', 'flushDirectory', 'facts', 'close']);
});
