import type { OpenChain } from '@downfold/chain';
import { headerAreaBytes } from '@downfold/luks';
import { alignUp, ceilDivide, SECTOR_BYTES } from '@downfold/units';
import { chainSource } from '../copy/disk-source.ts';
import { openSource } from '../copy/sources.ts';
import { unitRuns } from '../copy/unit-runs.ts';
import { assertNoDataFile, isVersion2, settingsOf } from '../create-settings.ts';
import type { Access } from '../environment.ts';
import { UsageError } from '../failure.ts';
import { assertPossibleSize, metadataBytes, qcow2Shape } from '../measure/qcow2-size.ts';
import { cipherFor } from '../new-encryption.ts';
import { type NewFormat, newFormatOf } from '../new-image.ts';
import { parseBytes } from '../output/bytes.ts';
import { printResult } from '../output/print.ts';

/** Options of `measure`. */
export interface MeasureOptions extends Access {
  readonly format: string;
  readonly targetFormat: string;
  readonly output: string;
  readonly option?: readonly string[];
  readonly size?: string;
  readonly snapshot?: string;
  readonly commit?: boolean;
  readonly base?: string;
  readonly top?: string;
}

/** What a file will take, in bytes, under qemu-img's keys; `bitmaps` where both formats have them. */
interface Measure {
  readonly required: number;
  readonly 'fully-allocated': number;
  readonly bitmaps?: number;
}

/** Of an entry of the bitmap directory, without its name. */
const BITMAP_ENTRY_BYTES = 24;

/** `downfold measure`: how large a new image, or with `--commit` the base of a commit, may become. */
export async function measure(file: string | undefined, options: MeasureOptions): Promise<number> {
  if (options.commit === true) {
    if (file === undefined) throw new UsageError('--commit needs the image that is committed');
    const { measureCommit } = await import('../measure/commit.ts');
    return await measureCommit(file, options);
  }
  const format = newFormatOf(options.targetFormat);
  const settings = settingsOf(options.option ?? [], format.name);
  assertNoDataFile(settings);
  const { size } = options;
  if ((file === undefined) === (size === undefined))
    throw new UsageError('Either --size N or one filename must be specified');
  const measured =
    file === undefined
      ? measureSize(format, settings, parseBytes(size as string, 'image size'))
      : await measureImage(file, format, settings, options);
  printResult(options, measured, () => human(measured));
  return 0;
}

/** As qemu-img it refuses a size that no image can have; of an image it only tells what a copy would take. */
function measureSize(
  format: NewFormat,
  settings: Readonly<Record<string, string>>,
  size: number,
): Measure {
  if (format.name === 'qcow2') assertPossibleSize(qcow2Shape(settings), size);
  return sizes(format, settings, size, 0);
}

async function measureImage(
  file: string,
  format: NewFormat,
  settings: Readonly<Record<string, string>>,
  options: MeasureOptions,
): Promise<Measure> {
  const access = { allowLocked: true, ...options };
  await using chain = await openSource(file, options.format, access, options.snapshot);
  const leaf = chain.layers.at(-1)?.image;
  const size = leaf?.geometry.virtualSize ?? 0;
  if (format.name !== 'qcow2') return sizes(format, settings, size, 0);
  const { clusterSize } = qcow2Shape(settings);
  const backed = settings['backing_file'] !== undefined;
  const data = backed ? alignUp(size, clusterSize) : await dataBytes(chain, clusterSize);
  const measured = sizes(format, settings, size, data);
  if (leaf === undefined || isVersion2(settings)) return measured;
  const { specific } = await leaf.describe();
  if (leaf.format !== 'qcow2' || specific['compat'] === '0.10') return measured;
  return { bitmaps: bitmapBytes(specific['bitmaps'], size, clusterSize), ...measured };
}

/** Bytes of a copy's bitmaps: their bits, a table for each, and the directory. */
function bitmapBytes(bitmaps: unknown, size: number, clusterSize: number): number {
  const known = (bitmaps ?? []) as readonly {
    readonly name: string;
    readonly granularity: number;
    readonly flags: readonly string[];
  }[];
  let [bytes, directory] = [0, 0];
  for (const { name, granularity, flags } of known) {
    if (flags.includes('in-use')) continue;
    const bits = ceilDivide(ceilDivide(size, granularity), 8);
    const clusters = ceilDivide(bits, clusterSize);
    bytes += clusters * clusterSize + alignUp(clusters * 8, clusterSize);
    directory += alignUp(BITMAP_ENTRY_BYTES + Buffer.byteLength(name), 8);
  }
  return bytes + alignUp(directory, clusterSize);
}

/** Bytes of clusters of a copy in which anything is data. */
async function dataBytes(chain: OpenChain, clusterSize: number): Promise<number> {
  const source = chainSource(chain, { holes: clusterSize });
  let sum = 0;
  for await (const { kind, start, end } of unitRuns(source.runs(), clusterSize, source.length))
    if (kind === 'data') sum += alignUp(end - start, clusterSize);
  return sum;
}

function sizes(
  format: NewFormat,
  settings: Readonly<Record<string, string>>,
  size: number,
  data: number,
): Measure {
  const virtual = alignUp(size, SECTOR_BYTES);
  if (format.name !== 'qcow2') {
    const header = format.name === 'luks' ? headerAreaBytes(cipherFor(settings, '')) : 0;
    return { required: header + virtual, 'fully-allocated': header + virtual };
  }
  const shape = qcow2Shape(settings);
  const whole = alignUp(virtual, shape.clusterSize);
  const metadata = metadataBytes(shape, whole);
  const preallocated = ['falloc', 'full'].includes(settings['preallocation'] ?? 'off');
  return {
    required: metadata + (preallocated ? whole : data),
    'fully-allocated': metadata + whole,
  };
}

function human({ required, 'fully-allocated': full, bitmaps }: Measure): string {
  const lines = [`required size: ${required}`, `fully allocated size: ${full}`];
  if (bitmaps !== undefined) lines.push(`bitmaps size: ${bitmaps}`);
  return lines.join('\n');
}
