import { spawnSync } from 'node:child_process';
import { readFile, rm } from 'node:fs/promises';
import { must, type RunOptions, run } from './process.ts';

/**
 * Whether QEMU's tools are here. Without them the trials that need a foreign judge are skipped, loudly; with
 * `DOWNFOLD_REQUIRE_QEMU=1` (CI) their absence is an error.
 */
export function qemuIsHere(): boolean {
  const here = ['qemu-img', 'qemu-io'].every(
    (tool) => spawnSync(tool, ['--version'], { stdio: 'ignore' }).status === 0,
  );
  if (here) return true;
  const problem = 'qemu-img and qemu-io are not installed (Debian: apt-get install qemu-utils)';
  if (process.env['DOWNFOLD_REQUIRE_QEMU'] === '1') throw new Error(problem);
  process.stderr.write(`\n*** SKIPPED: every trial that QEMU judges: ${problem} ***\n\n`);
  return false;
}

/** What the virtual disk of `path` reads as, chain included, by QEMU's own reader. Through a temporary raw file. */
export async function viewByQemu(path: string, format: string): Promise<Buffer> {
  const copy = `${path}.view.tmp`;
  try {
    await must('qemu-img', ['convert', '-U', '-f', format, '-O', 'raw', path, copy]);
    return await readFile(copy);
  } finally {
    await rm(copy, { force: true });
  }
}

/** `qemu-img check` of a qcow2 image; empty when there is neither an error nor a leak, else what it says. */
export async function checkByQemu(path: string): Promise<string> {
  const ended = await run('qemu-img', ['check', '-f', 'qcow2', path]);
  return ended.code === 0 ? '' : `exit ${ended.code}: ${ended.stdout}${ended.stderr}`.trim();
}

/** `qemu-img compare` of an image, chain included, with a raw file; empty when they read the same, else what it says. */
export async function sameByQemu(path: string, format: string, raw: string): Promise<string> {
  const ended = await run('qemu-img', ['compare', '-U', '-f', format, '-F', 'raw', path, raw]);
  return ended.code === 0 ? '' : `${ended.stdout}${ended.stderr}`.trim();
}

/** The parts of `qemu-img info --output=json` that trials look at. */
export interface QemuInfo {
  readonly 'virtual-size': number;
  readonly 'backing-filename'?: string;
  readonly 'backing-filename-format'?: string;
}

/** Facts of one image by QEMU, its backing file unopened. */
export async function infoByQemu(path: string, format: string): Promise<QemuInfo> {
  const text = await must('qemu-img', ['info', '-U', '-f', format, '--output=json', path]);
  return JSON.parse(text) as QemuInfo;
}

/** Runs commands of `qemu-io` on one image in one process; rejects when any of them fails. */
export async function qemuIo(
  path: string,
  format: string,
  commands: readonly string[],
  options: RunOptions = {},
): Promise<void> {
  if (commands.length === 0) return;
  const args = commands.flatMap((command) => ['-c', command]);
  await must('qemu-io', ['-f', format, ...args, path], options);
}
