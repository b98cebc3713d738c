import { type Bench, bench } from './support.ts';

/** A directory on a file system of its own; the megabytes of it. */
export function mounted(megabytes: number): Bench {
  const work = bench();
  work.must('mount', '-t', 'tmpfs', '-o', `size=${megabytes}m`, 'downfold-test', work.path);
  return {
    ...work,
    [Symbol.dispose]: () => {
      work.must('umount', '--lazy', work.path);
      work[Symbol.dispose]();
    },
  };
}

function problem(): string | null {
  if (process.getuid?.() !== 0) return 'it needs root';
  try {
    using _ = mounted(1);
    return null;
  } catch (cause) {
    return (cause as Error).message;
  }
}

/** Why file systems cannot be mounted here; null: they can. */
export const mountProblem: string | null = problem();
if (mountProblem !== null && process.env['DOWNFOLD_REQUIRE_LOOP'] === '1')
  throw new Error(`DOWNFOLD_REQUIRE_LOOP=1, but nothing can be mounted: ${mountProblem}`);
if (mountProblem !== null)
  console.warn(`NO mount: tests of full file systems are skipped: ${mountProblem}`);
