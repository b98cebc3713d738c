import { byteLength, guestOffset, rangeBetween } from '@downfold/units';
import { copyDisk } from '../copy/copy-disk.ts';
import { chainSource } from '../copy/disk-source.ts';
import { assertNotAmong, openSource } from '../copy/sources.ts';
import { assertFits, newTarget, targetPath } from '../copy/target.ts';
import { UsageError } from '../failure.ts';
import { type JobOptions, runJob } from '../job.ts';
import { encryptionFor } from '../new-encryption.ts';
import { newFormatOf } from '../new-image.ts';
import { parseBytes } from '../output/bytes.ts';
import { printJson } from '../output/print.ts';

/** Options of `dd`. */
export interface DdOptions extends JobOptions {
  readonly format: string;
  readonly targetFormat: string;
}

const NAMES = ['if', 'of', 'bs', 'count', 'skip'] as const;
/** What was said of each: `bs=1M`. */
type Operands = Partial<Record<(typeof NAMES)[number], string>>;

const SPARSE_BYTES = 4096;
const BLOCK_BYTES = 512;
/** As qemu-img's. */
const MOST_BLOCK_BYTES = 2 ** 31 - 1;

/** `downfold dd`: a part of a disk as a new image. */
export async function dd(words: readonly string[], options: DdOptions): Promise<number> {
  const { if: input, of: output, ...blocks } = operandsOf(words);
  if (input === undefined || output === undefined)
    throw new UsageError('Must specify both input and output file names: if=INPUT of=OUTPUT');
  const blockBytes = blocks.bs === undefined ? BLOCK_BYTES : parseBytes(blocks.bs, 'block size');
  if (blockBytes === 0 || blockBytes > MOST_BLOCK_BYTES)
    throw new UsageError(
      `Invalid block size '${blocks.bs}': 1 to ${MOST_BLOCK_BYTES} bytes are valid`,
    );
  const count = blocks.count === undefined ? null : parseBytes(blocks.count, 'count');
  const skip = blocks.skip === undefined ? 0 : parseBytes(blocks.skip, 'skip');
  const copied = await runJob(options, 'stopped: nothing has the name of the copy', async (run) => {
    await using chain = await openSource(input, options.format, options);
    const path = await targetPath(output);
    await assertNotAmong(path, [chain]);
    const size = chain.layers.at(-1)?.image.geometry.virtualSize ?? 0;
    const from = Math.min(size, skip * blockBytes);
    const to = count === null ? size : Math.min(size, from + count * blockBytes);
    const source = chainSource(chain, { range: rangeBetween(guestOffset(from), to) });
    const format = newFormatOf(options.targetFormat);
    const encryption = encryptionFor(path, format.name, {}, options);
    await using target = await newTarget(path, format, {
      virtualSize: byteLength(source.length),
      ...(encryption === null ? {} : { encryption }),
    });
    assertFits(target, source.length, output);
    const done = await copyDisk(source, target.image, {
      sparseBytes: SPARSE_BYTES,
      targetIsZero: target.fresh,
      pass: (bytes) => run.throttle.pass(bytes, run.signal),
      onProgress: run.onProgress,
      signal: run.signal,
    });
    await target.finish();
    return { filename: output, format: target.image.format, length: source.length, ...done };
  });
  if (options.output === 'json') printJson(copied);
  return 0;
}

function operandsOf(words: readonly string[]): Operands {
  const operands: Operands = {};
  for (const word of words) {
    const at = word.indexOf('=');
    const name = NAMES.find((one) => one === word.slice(0, Math.max(0, at)));
    if (name === undefined)
      throw new UsageError(`Unrecognized operand '${word}'; known are ${NAMES.join('=, ')}=`);
    operands[name] = word.slice(at + 1);
  }
  return operands;
}
