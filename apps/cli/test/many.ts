import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { Bench, Ended } from './support.ts';

const RUN_MANY = fileURLToPath(new URL('run-many.ts', import.meta.url));

/** Runs many command lines of Downfold in one process. */
export function downfoldMany(work: Bench, lines: readonly (readonly string[])[]): readonly Ended[] {
  const source = ['--conditions=@downfold/source', RUN_MANY];
  const { status, stdout, stderr } = spawnSync(process.execPath, source, {
    cwd: work.path,
    input: JSON.stringify(lines),
    encoding: 'utf8',
    maxBuffer: 1 << 28,
  });
  if (status !== 0) throw new Error(`run-many: ${status}\n${stderr}`);
  return JSON.parse(stdout) as readonly Ended[];
}
