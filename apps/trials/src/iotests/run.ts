import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { CLI } from '../tools/cli.ts';
import { inLanes } from '../tools/parallel.ts';
import { must, run } from '../tools/process.ts';

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url));

/** Formats that the tests are run with. */
export const FORMATS = ['qcow2', 'raw'] as const;
export type Format = (typeof FORMATS)[number];

/** Longest that one test may take, in milliseconds. */
const PATIENCE = 1_800_000;
/** Tests at a time. */
const LANES = 2;

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
    { timeout: PATIENCE },
  );
  return join(kept.trim(), 'tests/qemu-iotests');
}

/** Which program the tests have for qemu-img: QEMU's own, or ours in its place. */
type Subject = 'qemu-img' | 'downfold';

/** Where tests run, and with what. */
export interface Place {
  /** `tests/qemu-iotests`. */
  readonly directory: string;
  /** What differs lies there afterwards, as `NNN/NNN.out.bad`. */
  readonly work: string;
  readonly format: Format;
  readonly subject: Subject;
}

/**
 * Runs tests by QEMU's own `check`, which compares their output with what it should be.
 * @throws Error when `check` does not start a test
 */
export async function runTests(tests: readonly string[], place: Place): Promise<readonly Ended[]> {
  const ended = new Map<string, Ended>();
  await inLanes(LANES, tests, async (test) => {
    ended.set(test, await runTest(test, place));
  });
  return tests.map((test) => ended.get(test) as Ended);
}

/** One start of `check` for each test: one that prints what is not text brings `check` down, and has failed alone. */
async function runTest(test: string, place: Place): Promise<Ended> {
  const { directory, format, subject } = place;
  const work = join(place.work, test);
  await mkdir(work, { recursive: true });
  const { stdout, stderr } = await run('./check', ['-tap', `-${format}`, test], {
    cwd: directory,
    timeout: PATIENCE,
    env: { ...programs(subject), TEST_DIR: work },
  });
  if (!stdout.includes(`# running ${format} ${test}\n`))
    throw new Error(`check does not start ${test}\n${stdout}${stderr}`);
  return withTraces(work, { test, how: howOf(stdout, format, test) });
}

/** Where the tests find QEMU's programs. */
function programs(subject: Subject): Record<string, string | undefined> {
  return {
    QEMU_PROG: '/usr/bin/qemu-system-x86_64',
    QEMU_IO_PROG: '/usr/bin/qemu-io',
    QEMU_NBD_PROG: '/usr/bin/qemu-nbd',
    QSD_PROG: '/usr/bin/qemu-storage-daemon',
    QEMU_IMG_PROG: subject === 'downfold' ? here('qemu-img.sh') : '/usr/bin/qemu-img',
    REAL_QEMU_IMG: '/usr/bin/qemu-img',
    DOWNFOLD: `${process.execPath} ${CLI}`,
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
