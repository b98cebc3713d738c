import { open, readFile, stat } from 'node:fs/promises';
import { engine } from '../downfold.ts';
import type { Pool } from '../kill/pool.ts';

/** What one commit of top into base cost. Bytes and milliseconds. */
export interface Cost {
  /** Written by any system call, journal and metadata included; by the kernel's count. */
  readonly written: number;
  /** Most host space that the whole pool took in the meantime, above what it took before. */
  readonly peak: number;
  /** Host space that it takes afterwards, above what it took before; negative: given back. */
  readonly after: number;
  readonly milliseconds: number;
}

/** Milliseconds between two looks at the space that is taken. */
const LOOK = 5;

/** Puts the pool back, commits top into base, measures. The files are written to the disk before the time starts. */
export async function measure(pool: Pool, strategy: string): Promise<Cost> {
  await pool.restore();
  await flushAll(pool);
  const ours = engine();
  const plan = await ours.plan({
    file: pool.path('active'),
    format: 'qcow2',
    base: pool.path('base'),
    top: pool.path('top'),
    strategy,
    ...(strategy === 'preserve' ? { keepSiblings: true } : { invalidateSiblings: true }),
  });
  const before = await spaceOf(pool);
  let peak = before;
  let looking = Promise.resolve();
  const timer = setInterval(() => {
    looking = looking.then(async () => {
      peak = Math.max(peak, await spaceOf(pool));
    });
  }, LOOK);
  const [writtenBefore, start] = [await writtenByUs(), performance.now()];
  await ours.run(plan);
  const milliseconds = performance.now() - start;
  const written = (await writtenByUs()) - writtenBefore;
  clearInterval(timer);
  await looking;
  const end = await spaceOf(pool);
  return { written, peak: Math.max(peak, end) - before, after: end - before, milliseconds };
}

/** What `auto` chooses for a commit of top into base that must keep siblings, and why. */
export async function choiceOf(pool: Pool): Promise<string> {
  await pool.restore();
  const plan = await engine().plan({
    file: pool.path('active'),
    format: 'qcow2',
    base: pool.path('base'),
    top: pool.path('top'),
    strategy: 'auto',
    keepSiblings: true,
  });
  return plan.chosen?.why ?? plan.strategy.name;
}

async function spaceOf(pool: Pool): Promise<number> {
  const sizes = pool.spec.images.map(
    async ({ name }) => 512 * (await stat(pool.path(name))).blocks,
  );
  return (await Promise.all(sizes)).reduce((sum, bytes) => sum + bytes, 0);
}

async function flushAll(pool: Pool): Promise<void> {
  for (const { name } of pool.spec.images) {
    await using file = await open(pool.path(name), 'r+');
    await file.sync();
  }
}

async function writtenByUs(): Promise<number> {
  const text = await readFile('/proc/self/io', 'utf8');
  return Number(/^wchar: (\d+)$/m.exec(text)?.[1] ?? Number.NaN);
}
