import { Random } from '@downfold/compliance';
import { describe, expect, test } from 'vitest';
import { connectNbd, listExports, type Style, serveNbd } from '../src/index.ts';
import { MemoryExport } from './memory-export.ts';
import { randomWork } from './random-work.ts';
import { scratch } from './support.ts';

const styles: readonly Style[] = ['simple', 'structured', 'extended'];

describe.each(styles)('our client and our server, %s', (style) => {
  test('random reads and writes, many at once, agree with a plain buffer', async () => {
    using files = scratch();
    const random = new Random(7);
    const disk = new MemoryExport(1 << 20);
    const model = Buffer.alloc(disk.size);
    const path = files.path('nbd');
    await using _server = await serveNbd({ listen: { path }, exports: [['disk', disk]] });
    await using client = await connectNbd({ server: { path }, name: 'disk', style });
    expect(client.info.style).toBe(style);
    for (let round = 0; round < 30; round++)
      await randomWork(client, model, random, { slot: 65_536, most: 30_000, kinds: 4 });
    expect(disk.bytes.equals(model)).toBe(true);
  });
});

test('lists exports', async () => {
  using files = scratch();
  const path = files.path('nbd');
  const exports = [
    ['a', new MemoryExport(4096, { description: 'first' })],
    ['', new MemoryExport(0)],
  ] as const;
  await using _server = await serveNbd({ listen: { path }, exports });
  expect(await listExports({ server: { path } })).toEqual([
    { name: 'a', description: 'first' },
    { name: '', description: '' },
  ]);
});

describe.each(styles)('what our client asks for reaches the export, %s', (style) => {
  test('FUA, NO_HOLE, FAST_ZERO, CACHE, TRIM and FLUSH', async () => {
    using files = scratch();
    const path = files.path('nbd');
    const disk = new MemoryExport(65_536);
    await using _server = await serveNbd({ listen: { path }, exports: [['disk', disk]] });
    await using client = await connectNbd({ server: { path }, name: 'disk', style });
    await client.write(0, Buffer.alloc(4096, 9), { fua: true });
    expect(disk.durable.subarray(0, 4096).equals(Buffer.alloc(4096, 9))).toBe(true);
    await client.write(4096, Buffer.alloc(1, 9));
    expect(disk.durable[4096]).toBe(0);
    await client.flush();
    expect(disk.durable[4096]).toBe(9);
    await client.writeZeroes(0, 4096, { fua: true, mayTrim: false });
    await client.writeZeroes(0, 4096, { fast: true });
    await client.trim(8192, 100, { fua: true });
    await client.cache(1, 2);
    expect(disk.calls.filter(({ call }) => call !== 'write' && call !== 'flush')).toEqual([
      { call: 'writeZeroes', offset: 0, length: 4096, fua: true, mayTrim: false, fast: false },
      { call: 'writeZeroes', offset: 0, length: 4096, fua: false, mayTrim: true, fast: true },
      { call: 'trim', offset: 8192, length: 100, fua: true },
      { call: 'cache', offset: 1, length: 2 },
    ]);
    // requests of nothing are answered as well
    await client.read(0, Buffer.alloc(0));
    await client.write(0, Buffer.alloc(0));
  });
});
