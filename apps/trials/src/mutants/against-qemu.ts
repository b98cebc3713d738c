import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from '../tools/process.ts';
import { scratch } from '../tools/scratch.ts';
import type { Judged } from './judge.ts';
import { contentOf, type Mutant, toldOf } from './mutant.ts';
import { DATA } from './seed-images.ts';

/** An accepted mutant, all of which was read. */
export interface Sample {
  readonly mutant: Mutant;
  readonly view: Uint8Array;
  readonly refusals: Judged['refusals'];
}

/** What QEMU prints between two mutants: the help of a command. */
const SEPARATOR = ['-c', 'help close'] as const;
const SEPARATED = /^close .*$/m;

/**
 * Reads accepted mutants by QEMU, all in one process: starting one costs as much as ten mutants do. What lies below them is left out. QEMU reads
 * snapshots and bitmaps when it opens an image, Downfold when somebody asks for them: who refused them then agrees with a QEMU that refuses it all.
 * @returns for each null when it reads the same; else what differs
 */
export async function differFromQemu(
  samples: readonly Sample[],
): Promise<readonly (string | null)[]> {
  if (samples.length === 0) return [];
  await using directory = await scratch('mutants');
  const commands: string[] = [];
  for (const [index, { mutant, view }] of samples.entries()) {
    const node = await written(mutant, join(directory.path, String(index)));
    // nothing follows what was read
    const reads = [`read -v 0 ${view.length}`, `read ${Math.ceil(view.length / 512) * 512} 1`];
    for (const command of [`open -r json:${JSON.stringify(node)}`, ...reads, 'close'])
      commands.push('-c', command);
    commands.push(...SEPARATOR);
  }
  const { stdout, stderr } = await run('qemu-io', commands);
  const said = stdout.split(SEPARATED);
  if (said.length !== samples.length + 1)
    throw new Error(`qemu-io said ${said.length - 1} of ${samples.length}: ${stdout}${stderr}`);
  const found: (string | null)[] = [];
  for (const [index, sample] of samples.entries()) {
    const one = differs(sample, said[index] ?? '', stderr);
    // alone, what it says of an error is of this one
    found.push(one === null || samples.length === 1 ? one : await alone(sample));
  }
  return found;
}

async function alone(sample: Sample): Promise<string | null> {
  const [differs = null] = await differFromQemu([sample]);
  return differs;
}

/** What QEMU does not have of the format, and Downfold does: extra data of bitmaps, and the flag that one may go without knowing it. */
const NOT_IN_QEMU = /Bitmap extra data is not supported/;
const FLAG_NOT_IN_QEMU = /bitmap: flags (becomes|has a bit flipped:) [4-7](;|$)/;
const CONSTRAINTS = /Bitmap '.*' doesn't satisfy the constraints/;

function isNotInQemu(mutant: Mutant, errors: string): boolean {
  if (NOT_IN_QEMU.test(errors)) return true;
  return CONSTRAINTS.test(errors) && FLAG_NOT_IN_QEMU.test(toldOf(mutant));
}

/** Writes the mutant's files; resolves with QEMU's node of it. */
async function written(mutant: Mutant, path: string): Promise<object> {
  await writeFile(`${path}.qcow2`, mutant.bytes);
  const data = mutant.of.hasDataFile && { driver: 'file', filename: `${path}.raw` };
  if (data) await writeFile(data.filename, contentOf(mutant.disk, DATA));
  return {
    driver: 'qcow2',
    file: { driver: 'file', filename: `${path}.qcow2` },
    backing: null,
    ...(data && { 'data-file': data }),
  };
}

function differs({ mutant, view, refusals }: Sample, said: string, errors: string): string | null {
  const [, read, beyond] = /read (\d+)\/\d+ bytes at offset 0$((?:.|\n)*)/m.exec(said) ?? [];
  if (read === undefined && view.length > 0) {
    if (isNotInQemu(mutant, errors) || refusals.some(({ at }) => at === 'facts')) return null;
    return `QEMU refuses what is accepted: ${said.trim()} (${errors.trim()})`;
  }
  if (beyond !== undefined && /^read \d+\/\d+ bytes/m.test(beyond))
    return `QEMU reads more than ${view.length} bytes`;
  const wanted = dumped(said, view.length);
  const wrong = wanted.findIndex((byte, at) => byte !== view[at]);
  return wrong < 0 ? null : `QEMU reads ${wanted[wrong]} at ${wrong}, not ${view[wrong]}`;
}

/** The bytes of a dump: lines of an offset, up to 16 bytes, and what they are as text. */
function dumped(said: string, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  for (const [, offset = '', hex = ''] of said.matchAll(
    /^([0-9a-f]{8,}): {2}((?:[0-9a-f]{2} )+)/gm,
  ))
    bytes.set(Buffer.from(hex.replaceAll(' ', ''), 'hex'), Number.parseInt(offset, 16));
  return bytes;
}
