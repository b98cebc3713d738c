import { cp, mkdir, readdir, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { CLI } from '../tools/cli.ts';
import { inLanes } from '../tools/parallel.ts';
import { judge, type Verdict } from './judge.ts';
import { digestOf, keptResults, type Result } from './kept.ts';
import { pickTests } from './pick.ts';
import { FORMATS, type Format, fetchTests, type Place, runTest, STAND_IN } from './run.ts';

/** Tests at a time. */
const LANES = 2;

/** What the tests said, and the directory where what differs can be looked at; it is there until the next survey. */
export interface Survey {
  readonly verdicts: readonly Verdict[];
  readonly work: string;
}

/** Options of a survey. */
export interface SurveyOptions {
  /** These tests; none: all that concern Downfold. */
  readonly only: readonly string[];
  /** Goes on with a survey that was broken off, when Downfold and the stand-in are the same still. */
  readonly resume: boolean;
}

/** Runs QEMU's tests with Downfold in the place of qemu-img, and those that fail once more with qemu-img. Says on stderr how far it is. */
export async function survey({ only, resume }: SurveyOptions): Promise<Survey> {
  const directory = await fetchTests();
  const tests = only.length > 0 ? only : await pickTests(directory);
  // a path of its own for each run would be told in the tests' output, and some cut it at its length
  const work = join(tmpdir(), 'downfold-iotests');
  if (!resume) await rm(work, { recursive: true, force: true });
  await mkdir(work, { recursive: true });
  const { cli, digest } = await frozen(join(work, 'cli'));
  const kept = await keptResults(join(work, 'results'), digest, resume);
  const tasks = FORMATS.flatMap((format) => tests.map((test) => ({ format, test })));
  const resultOf = (format: Format, test: string): Result | undefined =>
    kept.results.find((one) => one.format === format && one.ours.test === test);
  const open = tasks.filter(({ format, test }) => resultOf(format, test) === undefined);
  let done = tasks.length - open.length;
  await inLanes(LANES, open, async ({ format, test }) => {
    const started = performance.now();
    const result = await runBoth(format, test, { directory, work, cli });
    await kept.add(result);
    const seconds = ((performance.now() - started) / 1000).toFixed(1);
    done += 1;
    process.stderr.write(
      `${done}/${tasks.length} ${format} ${test} ${result.ours.how} ${seconds} s\n`,
    );
  });
  const verdicts = tasks.map(({ format, test }) => {
    const { ours, theirs } = resultOf(format, test) as Result;
    return judge(format, ours, theirs);
  });
  return { verdicts, work };
}

async function runBoth(format: Format, test: string, place: Place): Promise<Result> {
  const ours = await runTest(test, format, 'downfold', place);
  const failed = ours.how === 'failed' && ours.calls > 0;
  return { format, ours, theirs: failed ? await runTest(test, format, 'qemu-img', place) : null };
}

/** A copy of the command line as it is built now: a build while the tests run changes nothing for them. And a name of what it is. */
async function frozen(copy: string): Promise<{ cli: string; digest: string }> {
  const app = dirname(dirname(CLI));
  await rm(copy, { recursive: true, force: true });
  for (const part of ['bin', 'dist', 'package.json'])
    await cp(join(app, part), join(copy, part), { recursive: true });
  await symlink(join(app, 'node_modules'), join(copy, 'node_modules'));
  const dist = join(copy, 'dist');
  const parts = (await readdir(dist)).filter((name) => name.endsWith('.js')).sort();
  const digest = await digestOf([STAND_IN, ...parts.map((name) => join(dist, name))]);
  return { cli: join(copy, 'bin', 'downfold.js'), digest };
}
