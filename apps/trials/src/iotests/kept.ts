import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { appendFile, readFile, writeFile } from 'node:fs/promises';
import type { Ended, Format } from './run.ts';

/** How a test ended on a format: with Downfold, and, if it failed, with qemu-img (null: it was not run). */
export interface Result {
  readonly format: Format;
  readonly ours: Ended;
  readonly theirs: Ended | null;
}

/** Results that outlive the process, so that a run that was broken off can go on: a line of what they are of, then one for each. */
export interface Kept {
  readonly results: readonly Result[];
  add(result: Result): Promise<void>;
}

/** Opens results of `subject`, which is all that they depend on. Those of another subject are forgotten, and all of them unless `resume`. */
export async function keptResults(path: string, subject: string, resume: boolean): Promise<Kept> {
  const [first, ...lines] =
    resume && existsSync(path) ? (await readFile(path, 'utf8')).split('\n') : [];
  const known = first === subject;
  if (!known) await writeFile(path, `${subject}\n`);
  const whole = known ? lines.filter((line) => line !== '') : [];
  const results = whole.map((line) => JSON.parse(line) as Result);
  return {
    results,
    add: async (result) => {
      results.push(result);
      await appendFile(path, `${JSON.stringify(result)}\n`);
    },
  };
}

/** A name of what files hold. */
export async function digestOf(paths: readonly string[]): Promise<string> {
  const hash = createHash('sha256');
  for (const path of paths) hash.update(await readFile(path));
  return hash.digest('hex');
}
