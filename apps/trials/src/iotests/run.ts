import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { CLI } from '../tools/cli.ts';
import { must, run } from '../tools/process.ts';

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url));

/** Formats that the tests are run with. */
export const FORMATS = ['qcow2', 'raw'] as const;
export type Format = (typeof FORMATS)[number];

/** Longest that all tests of a format may take, in milliseconds. */
const PATIENCE = 7_200_000;
/** Tests at a time; more than one, for `check` then gives each a directory of its own. */
const LANES = '2';

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
export type Subject = 'qemu-img' | 'downfold';

/**
 * Runs tests by QEMU's own `check`, which compares their output with what it should be. What differs lies in `work` afterwards
 * (`NNN/NNN.out.bad`).
 * @throws Error when `check` itself fails
 */
export async function runTests(
  tests: readonly string[],
  {
    directory,
    work,
    format,
    subject,
  }: { directory: string; work: string; format: Format; subject: Subject },
): Promise<readonly Ended[]> {
  await mkdir(work, { recursive: true });
  const ended = await run('./check', ['-tap', '-j', LANES, `-${format}`, ...tests], {
    cwd: directory,
    timeout: PATIENCE,
    env: { ...programs(subject), TEST_DIR: work },
  });
  const results = resultsOf(ended.stdout, format);
  if (results.length !== tests.length)
    throw new Error(
      `check told of ${results.length} tests, not of ${tests.length}\n${ended.stdout}${ended.stderr}`,
    );
  return Promise.all(results.map((one) => withTraces(work, one)));
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

/** Reads what `check -tap` prints: `ok qcow2 001`, `not ok qcow2 002`, `ok qcow2 003 # SKIP`. */
export function resultsOf(tap: string, format: Format): readonly Pick<Ended, 'test' | 'how'>[] {
  const line = new RegExp(`^(not )?ok ${format} (\\S+)( # SKIP)?$`, 'gm');
  return [...tap.matchAll(line)].map(([, not, test = '', skip]) => ({
    test,
    how: not !== undefined ? 'failed' : skip !== undefined ? 'skipped' : 'passed',
  }));
}

/** What `work` holds of a test: why it was skipped, and what the stand-in noted as done by Downfold. */
async function withTraces(work: string, one: Pick<Ended, 'test' | 'how'>): Promise<Ended> {
  const why = one.how === 'skipped' ? await textOf(join(work, one.test, `${one.test}.notrun`)) : '';
  const calls = (await textOf(join(work, one.test, 'calls'))).split('\n');
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
