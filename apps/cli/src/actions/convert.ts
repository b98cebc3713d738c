import { posix } from 'node:path';
import { identityKey, identityOf, type OpenChain } from '@downfold/chain';
import type { Image } from '@downfold/image';
import { isQcow2 } from '@downfold/qcow2';
import { byteLength } from '@downfold/units';
import { type Copied, copyDisk } from '../copy/copy-disk.ts';
import { chainSource, concatenated, type DiskSource } from '../copy/disk-source.ts';
import { assertNotAmong, openSource } from '../copy/sources.ts';
import { newTarget, presentTarget, type Target, targetPath } from '../copy/target.ts';
import { settingsHelp, settingsOf } from '../create-settings.ts';
import { backend, openAlone } from '../environment.ts';
import { UsageError } from '../failure.ts';
import { type JobOptions, runJob } from '../job.ts';
import { backingFor, createOptions, newFormatOf } from '../new-image.ts';
import { parseBytes } from '../output/bytes.ts';
import { print, printJson } from '../output/print.ts';
import { directoryOf } from '../paths.ts';

/** Options of `convert`. */
export interface ConvertOptions extends JobOptions {
  readonly format: string;
  readonly targetFormat: string;
  readonly option?: readonly string[];
  readonly backing?: string;
  readonly backingFormat?: string;
  readonly snapshot?: string;
  readonly sparse: string;
  readonly compress?: boolean;
  readonly skipCreate?: boolean;
  readonly targetIsZero?: boolean;
  readonly bitmaps?: boolean;
  readonly skipBrokenBitmaps?: boolean;
}

/** `downfold convert`: copies the disk that images show, one after the other, into a new image, which has its name only when it is whole. */
export async function convert(files: readonly string[], options: ConvertOptions): Promise<number> {
  if (options.option?.includes('help') === true) {
    print(settingsHelp(newFormatOf(options.targetFormat).name));
    return 0;
  }
  const sources = files.slice(0, -1);
  const target = files.at(-1) as string;
  if (sources.length === 0) throw new UsageError('Must specify image file name: SOURCE... TARGET');
  const sparseBytes = parseBytes(options.sparse, 'sparse size');
  assertTogether(sources, options);
  const copied = await runJob(options, 'stopped: nothing has the name of the copy', async (run) => {
    await using opened = new AsyncDisposableStack();
    const chains: OpenChain[] = [];
    for (const file of sources)
      chains.push(opened.use(await openSource(file, options.format, options, options.snapshot)));
    const path = await targetPath(target);
    await assertNotAmong(path, chains);
    const source = await sourceOf(chains, target, options);
    const to = opened.use(await openTarget(path, source.length, target, options));
    assertFits(to, source.length, target);
    const done = await copyDisk(source, to.image, {
      sparseBytes,
      compress: options.compress === true,
      targetIsZero: (to.fresh || options.targetIsZero === true) && to.image.backing === null,
      pass: (bytes) => run.throttle.pass(bytes, run.signal),
      onProgress: run.onProgress,
      signal: run.signal,
    });
    if (options.bitmaps === true)
      await copyBitmaps(chains, to.image, options.skipBrokenBitmaps === true);
    await to.finish();
    return { ...done, virtualSize: to.image.geometry.virtualSize, format: to.image.format };
  });
  if (options.output === 'json') printJson(told(target, copied));
  return 0;
}

function told(
  filename: string,
  { format, virtualSize, ...copied }: Copied & { readonly format: string; virtualSize: number },
): unknown {
  return { filename, format, 'virtual-size': virtualSize, ...copied };
}

/** @throws UsageError for options that contradict one another */
function assertTogether(sources: readonly string[], options: ConvertOptions): void {
  const { skipCreate, option, targetIsZero, backing } = options;
  if (options.compress === true && options.targetFormat === 'raw')
    throw new UsageError('Compression not supported for this file format; -O qcow2 has it');
  if (options.bitmaps === true && sources.length > 1)
    throw new UsageError('--bitmaps goes with one source');
  if (options.skipBrokenBitmaps === true && options.bitmaps !== true)
    throw new UsageError('Use of --skip-broken-bitmaps requires --bitmaps');
  if (skipCreate === true && option !== undefined)
    throw new UsageError('-o describes a new image, and -n makes none: give one of them');
  if (targetIsZero === true && skipCreate !== true)
    throw new UsageError('--target-is-zero requires use of -n flag');
  if (targetIsZero === true && backing !== undefined)
    throw new UsageError('Cannot use --target-is-zero with a backing file');
  if (sources.length > 1 && (backing !== undefined || options.snapshot !== undefined))
    throw new UsageError('-B and -l go with one source');
}

/** Copies the persistent bitmaps of the leaf. @throws UsageError where there cannot be any, or one is broken */
async function copyBitmaps(
  chains: readonly OpenChain[],
  target: Image,
  skipBroken: boolean,
): Promise<void> {
  const source = chains[0]?.layers.at(-1)?.image;
  if (source === undefined || !isQcow2(source) || !isQcow2(target))
    throw new UsageError('--bitmaps: only qcow2 images have bitmaps');
  for (const { name, granularity, enabled, inconsistent } of await source.bitmaps.list()) {
    if (inconsistent && skipBroken) continue;
    const content = await source.bitmaps.content(name);
    await target.bitmaps.add({ name, granularity, enabled });
    await target.bitmaps.merge(name, content);
  }
}

/** What is copied: with `-B` only what lies above the layer that the copy has below it. */
async function sourceOf(
  chains: readonly OpenChain[],
  target: string,
  { backing, option, targetFormat }: ConvertOptions,
): Promise<DiskSource> {
  const name = backing ?? settingsOf(option ?? [], newFormatOf(targetFormat).name)['backing_file'];
  const [only] = chains;
  if (name === undefined || only === undefined)
    return concatenated(chains.map((chain) => chainSource(chain)));
  return chainSource(only, { base: await sharedLayer(only, target, name) });
}

/** The layer that `-B` names; one that is not of the chain stands for the backing file of the leaf, as in qemu-img. */
async function sharedLayer({ layers }: OpenChain, target: string, name: string): Promise<number> {
  const identity = await identityOf(posix.resolve(directoryOf(target), name), backend);
  const key = identity === null ? null : identityKey(identity);
  const shared = layers.findIndex(({ facts }) => identityKey(facts.identity) === key);
  if (shared === layers.length - 1)
    throw new UsageError(`-B ${name}: is the image that is copied; there would be nothing to copy`);
  return shared >= 0 ? shared : layers.length - 2;
}

async function openTarget(
  path: string,
  size: number,
  target: string,
  options: ConvertOptions,
): Promise<Target> {
  if (options.skipCreate === true) return await presentTarget(path, options.targetFormat);
  const format = newFormatOf(options.targetFormat);
  const settings = settingsOf(options.option ?? [], format.name);
  const backing = backingFor(target, options, settings);
  // it must be there and be what -F says
  if (backing !== null) {
    const below = posix.resolve(directoryOf(target), backing.name);
    await using _opened = await openAlone(below, backing.format ?? '', options);
  }
  return await newTarget(
    path,
    format,
    createOptions(format, settings, { virtualSize: byteLength(size), backing }),
  );
}

/** @throws UsageError when an image that was there before cannot hold the copy */
function assertFits({ image, fresh }: Target, length: number, target: string): void {
  const { virtualSize, allocationGranularity } = image.geometry;
  if (virtualSize < length)
    throw new UsageError(
      `${target}: has ${virtualSize} bytes, and the copy needs ${length}; 'downfold resize' makes it larger`,
    );
  if (
    !fresh &&
    image.backing !== null &&
    virtualSize > length &&
    length % allocationGranularity > 0
  )
    throw new UsageError(
      `${target}: the copy would end inside a cluster, and the rest of it is in the backing file`,
    );
}
