import { readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { perTier } from '@downfold/compliance';
import { expect, test } from 'vitest';
import { FROM_SOURCE } from '../src/tools/from-source.ts';
import { type Ended, run } from '../src/tools/process.ts';
import { scratch } from '../src/tools/scratch.ts';

const MAIN = fileURLToPath(new URL('../src/fuzz/main.ts', import.meta.url));

/** Fuzzes for so many images, or seconds; `flags`: of Node; `kept`: the directory of what is not treated as it must be. */
function fuzz(
  runs: number,
  seconds: number,
  flags: readonly string[] = [],
  kept: readonly string[] = [],
): Promise<Ended> {
  const args = [...FROM_SOURCE, ...flags, MAIN, String(seconds), '1', String(runs), ...kept];
  return run(process.execPath, args, { timeout: (seconds + 60) * 1000 });
}

/** What its last line says. */
function figuresOf({ stdout, stderr }: Ended): { reached: number; valid: number; faults: number } {
  const last = /(\d+) blocks, (\d+) by valid images; (\d+) faults\n$/.exec(stdout);
  if (last === null) throw new Error(`the fuzzer says no figures: ${stdout}${stderr}`);
  const [reached, valid, faults] = last.slice(1).map(Number) as [number, number, number];
  return { reached, valid, faults };
}

// A short run of what a person leaves running for hours: it must find its way into code that no valid image reaches, and nothing wrong there.
test('the fuzzer that coverage guides reaches more than valid images do', async () => {
  const seconds = perTier({ quick: 60, ci: 170, long: 3500 });
  const ended = await fuzz(perTier({ quick: 50, ci: 300, long: 100_000 }), seconds);
  process.stdout.write(ended.stdout);
  const { reached, valid, faults } = figuresOf(ended);
  expect(reached).toBeGreaterThan(1.3 * valid);
  expect([faults, ended.code]).toEqual([0, 0]);
});

/** Loaded before the reader: its errors have no type. */
const UNTYPED = `import { registerHooks } from 'node:module';
registerHooks({
  load: (url, context, next) => {
    const loaded = next(url, context);
    if (!url.endsWith('/packages/qcow2/src/corrupt.ts')) return loaded;
    return { ...loaded, source: String(loaded.source).replaceAll('new ImageError(', 'new RangeError(') };
  },
});`;

test('the fuzzer finds what is wrong with a reader whose errors have no type, and keeps the images', async () => {
  await using directory = await scratch('fuzz');
  const broken = `--import=data:text/javascript,${encodeURIComponent(UNTYPED)}`;
  const ended = await fuzz(20, 60, [broken], [directory.path]);
  const { faults } = figuresOf(ended);
  expect(faults).toBeGreaterThan(0);
  expect(ended.code).toBe(1);
  expect(readdirSync(directory.path).length).toBeGreaterThan(0);
});
