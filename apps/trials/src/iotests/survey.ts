import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { judge, type Verdict } from './judge.ts';
import { pickTests } from './pick.ts';
import { type Ended, FORMATS, type Format, fetchTests, runTests } from './run.ts';

/** What the tests said, and the directory where what differs can be looked at; it is there until the next survey. */
export interface Survey {
  readonly verdicts: readonly Verdict[];
  readonly work: string;
}

/** Runs QEMU's tests with Downfold in the place of qemu-img, and those that fail once more with qemu-img. `only`: these; none: all that concern it. */
export async function survey(only: readonly string[]): Promise<Survey> {
  const directory = await fetchTests();
  const tests = only.length > 0 ? only : await pickTests(directory);
  // a path of its own for each run would be told in the tests' output, and some cut it at its length
  const work = join(tmpdir(), 'downfold-iotests');
  await rm(work, { recursive: true, force: true });
  const verdicts: Verdict[] = [];
  for (const format of FORMATS)
    verdicts.push(...(await surveyOne(tests, { directory, work, format })));
  return { verdicts, work };
}

async function surveyOne(
  tests: readonly string[],
  { directory, work, format }: { directory: string; work: string; format: Format },
): Promise<readonly Verdict[]> {
  const by = (
    subject: 'downfold' | 'qemu-img',
    some: readonly string[],
  ): Promise<readonly Ended[]> =>
    runTests(some, { directory, work: join(work, `${subject}-${format}`), format, subject });
  const ours = await by('downfold', tests);
  const failed = ours.filter(({ how }) => how === 'failed').map(({ test }) => test);
  // `check` of no tests would be of all
  const theirs = failed.length > 0 ? await by('qemu-img', failed) : [];
  const byTest = new Map(theirs.map((one) => [one.test, one]));
  return ours.map((one) => judge(format, one, byTest.get(one.test) ?? null));
}
