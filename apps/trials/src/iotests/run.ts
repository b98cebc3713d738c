import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { must, run } from '../tools/process.ts';

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url));

/** The script that stands in for qemu-img. */
export const STAND_IN: string = here('qemu-img.sh');

/** Formats that the tests are run with. */
export const FORMATS = ['qcow2', 'raw'] as const;
export type Format = (typeof FORMATS)[number];

/** Longest that one test may take, in seconds; the longest takes two minutes on a machine that does nothing else. */
const PATIENCE = 900;
/** Longest that fetching may take, in milliseconds. */
const FETCH_PATIENCE = 1_800_000;
/** What `timeout` exits with when it had to kill. */
const KILLED = 137;

/** How one test ended. */
export interface Ended {
  readonly test: string;
  readonly how: 'passed' | 'failed' | 'skipped';
  /** Why it was skipped, in its own words; else ''. */
  readonly why: string;
  /** Calls of qemu-img that Downfold did. */
  readonly calls: number;
}

/** Fetches QEMU's tests, once. Resolves with the directory of them. */
export async function fetchTests(): Promise<string> {
  const kept = await must(
    here('../../../../tools/fetch-debian.sh'),
    ['iotests', here('../../.cache')],
    { timeout: FETCH_PATIENCE },
  );
  return join(kept.trim(), 'tests/qemu-iotests');
}

/** Which program the tests have for qemu-img: QEMU's own, or ours in its place. */
export type Subject = 'qemu-img' | 'downfold';

/** Where tests run, and with what. */
export interface Place {
  /** `tests/qemu-iotests`. */
  readonly directory: string;
  /** What differs lies there afterwards, as `SUBJECT-FORMAT/NNN/NNN.out.bad`. */
  readonly work: string;
  /** The script that starts `downfold`. */
  readonly cli: string;
}

/**
 * Runs a test by QEMU's own `check`, which compares its output with what it should be. One start of `check` for each test: one that prints what is not
 * text brings `check` down, and has failed alone. One that takes too long is killed with what it started, and has failed.
 * @throws Error when `check` does not start the test
 */
export async function runTest(
  test: string,
  format: Format,
  subject: Subject,
  place: Place,
): Promise<Ended> {
  const work = join(place.work, `${subject}-${format}`, test);
  await mkdir(work, { recursive: true });
  const command = ['--signal=KILL', String(PATIENCE), './check', '-tap', `-${format}`, test];
  const { code, stdout, stderr } = await run('timeout', command, {
    cwd: place.directory,
    timeout: (PATIENCE + 60) * 1000,
    env: { ...programs(subject, place.cli), TEST_DIR: work },
  });
  if (code === KILLED) return withTraces(work, { test, how: 'failed' });
  if (!stdout.includes(`# running ${format} ${test}\n`))
    throw new Error(`check does not start ${test}\n${stdout}${stderr}`);
  return withTraces(work, { test, how: howOf(stdout, format, test) });
}

/** Where the tests find QEMU's programs. */
function programs(subject: Subject, cli: string): Record<string, string | undefined> {
  return {
    QEMU_PROG: '/usr/bin/qemu-system-x86_64',
    QEMU_IO_PROG: '/usr/bin/qemu-io',
    QEMU_NBD_PROG: '/usr/bin/qemu-nbd',
    QSD_PROG: '/usr/bin/qemu-storage-daemon',
    QEMU_IMG_PROG: subject === 'downfold' ? STAND_IN : '/usr/bin/qemu-img',
    REAL_QEMU_IMG: '/usr/bin/qemu-img',
    DOWNFOLD: `${process.execPath} ${cli}`,
    NODE_EXTRA_CA_CERTS: undefined,
    NODE_OPTIONS: undefined,
    NO_COLOR: '1',
  };
}

/** Reads what `check -tap` prints: `ok qcow2 001`, `ok qcow2 003 # SKIP`, or else that the test failed. */
export function howOf(tap: string, format: Format, test: string): Ended['how'] {
  const [, skip] = new RegExp(`^ok ${format} ${test}( # SKIP)?$`, 'm').exec(tap) ?? [null, null];
  return skip === null ? 'failed' : skip === undefined ? 'passed' : 'skipped';
}

/** What `work` holds of a test: why it was skipped, and what the stand-in noted as done by Downfold. */
async function withTraces(work: string, one: Pick<Ended, 'test' | 'how'>): Promise<Ended> {
  const why = one.how === 'skipped' ? await textOf(join(work, `${one.test}.notrun`)) : '';
  const calls = (await textOf(join(work, 'calls'))).split('\n');
  return {
    ...one,
    why: why.trim(),
    calls: calls.filter((line) => line.startsWith('downfold ')).length,
  };
}

/** A file's text; '' when it is not there. */
async function textOf(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return '';
    throw cause;
  }
}
