import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { perTier } from '@downfold/compliance';
import { ImageError } from '@downfold/image';
import { describe, expect, test } from 'vitest';
import { Attempt } from '../src/mutants/attempt.ts';
import { campaign, reportOf, tableOf } from '../src/mutants/campaign.ts';
import { keptImages } from '../src/mutants/corpus.ts';
import { judge } from '../src/mutants/judge.ts';
import { MemoryMeter } from '../src/mutants/meter.ts';
import { contentOf, mutantOf } from '../src/mutants/mutant.ts';
import { IMAGE, seedImages } from '../src/mutants/seed-images.ts';
import { checkByQemu, qemuIsHere } from '../src/tools/qemu.ts';
import { scratch } from '../src/tools/scratch.ts';

// Valid images of every kind with something wrong in their structures: only typed errors, little time and memory, and nothing is written
// when they are read; what is accepted reads as QEMU reads it, and neither a write nor a repair makes it worse. See src/mutants/judge.ts.
const count = perTier({ quick: 1000, ci: 100_000, long: 5_000_000 });
const first = Number(process.env['DOWNFOLD_SEED'] ?? 1);
const timeout = perTier({ quick: 120_000, ci: 900_000, long: 12 * 3_600_000 });
/** QEMU reads one of so many that are accepted. */
const oneIn = 50;

test(
  `${count} mutants from seed ${first}`,
  async () => {
    const qemu = qemuIsHere();
    const figures = await campaign({ count, first, oneIn: qemu ? oneIn : 0 }, (line) =>
      process.stdout.write(`${line}\n`),
    );
    process.stdout.write(`${tableOf(figures)}\n`);
    expect(figures.faults.map(reportOf)).toEqual([]);
    expect(figures.mutants).toBe(count);
    if (qemu) expect(figures.shown).toBeGreaterThan(figures.accepted / oneIn / 4);
    // as many again that are refused: a judge that meets only one kind sees little
    expect(figures.accepted / count).toBeGreaterThan(0.3);
    expect(figures.accepted / count).toBeLessThan(0.7);
    for (const part of ['open', 'read', 'check', 'facts', 'write', 'repair'])
      expect([...figures.refusals.keys()].filter((key) => key.startsWith(`${part}: `))).not.toEqual(
        [],
      );
  },
  timeout,
);

test.skipIf(!qemuIsHere())('what mutants are made of is sound, to QEMU', async () => {
  await using directory = await scratch('seeds');
  const path = join(directory.path, 'image.qcow2');
  writeFileSync(join(directory.path, 'below.raw'), '');
  for (const { name, disk, hasDataFile } of await seedImages()) {
    if (hasDataFile) continue;
    writeFileSync(path, contentOf(disk, IMAGE));
    expect([name, (await checkByQemu(path)) === '']).toEqual([name, name !== 'dirty']);
  }
});

test('a seed makes the same mutant each time', async () => {
  for (const seed of [1, 77, 4711]) {
    const [one, other] = [await mutantOf(seed), await mutantOf(seed)];
    expect(Buffer.compare(one.bytes, other.bytes)).toBe(0);
    expect(one.mutation.told).toEqual(other.mutation.told);
  }
});

test.each(keptImages())('kept: $name', async ({ disk }) => {
  expect((await judge(disk, new MemoryMeter())).faults).toEqual([]);
});

describe('the judge of mutants reports', () => {
  const faultsOf = async (work: () => Promise<unknown>): Promise<readonly string[]> => {
    const attempt = new Attempt(IMAGE, new MemoryMeter());
    await attempt.part('read', work);
    return attempt.faults;
  };
  const rejected = (cause: unknown) => (): Promise<never> => Promise.reject(cause);
  const spin = (milliseconds: number): void => {
    const start = process.threadCpuUsage();
    for (let spent = 0; spent < milliseconds; ) {
      const { user, system } = process.threadCpuUsage(start);
      spent = (user + system) / 1000;
    }
  };

  test('an error without a type, without an image, or at no offset', async () => {
    const typed = (label: string, offset: number): ImageError =>
      new ImageError('IMAGE_CORRUPT', `${label}: wrong`, { image: label, offset });
    expect(await faultsOf(rejected(typed(IMAGE, 512)))).toEqual([]);
    expect(await faultsOf(rejected(new RangeError('out of range')))).toHaveLength(1);
    expect(await faultsOf(rejected(typed('somewhere', 512)))).toHaveLength(1);
    expect(await faultsOf(rejected(typed(IMAGE, 2 ** 60)))).toHaveLength(1);
    const both = new SuppressedError(new TypeError('at close'), typed(IMAGE, 512));
    expect(await faultsOf(rejected(both))).toHaveLength(1);
  });

  test('time and memory above the budget', async () => {
    expect(await faultsOf(async () => spin(20))).toEqual([]);
    expect(await faultsOf(async () => spin(300))).toHaveLength(1);
    const held: Uint8Array[] = [];
    const hold = async (bytes: number): Promise<unknown> => held.push(new Uint8Array(bytes));
    expect(await faultsOf(() => hold(8 << 20))).toEqual([]);
    expect(await faultsOf(() => hold(80 << 20))).toHaveLength(1);
    held.length = 0;
  });
});
