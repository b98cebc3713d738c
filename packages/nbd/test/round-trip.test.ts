import { describe, expect, test } from 'vitest';
import { connectNbd, listExports, type Style, serveNbd } from '../src/index.ts';
import { MemoryExport } from './memory-export.ts';
import { Random, scratch } from './support.ts';

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
    for (let round = 0; round < 30; round++) {
      // ranges apart, so that the order does not matter
      const work = Array.from({ length: 16 }, async (_, slot) => {
        const offset = slot * 65_536 + random.next(30_000);
        const length = 1 + random.next(30_000);
        const kind = random.next(4);
        if (kind === 0) {
          const bytes = random.bytes(length);
          model.set(bytes, offset);
          return await client.write(offset, bytes);
        }
        if (kind === 1) {
          model.fill(0, offset, offset + length);
          return await client.writeZeroes(offset, length);
        }
        const target = Buffer.alloc(length, 0xaa);
        await client.read(offset, target);
        expect(target.equals(model.subarray(offset, offset + length))).toBe(true);
      });
      await Promise.all(work);
    }
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
