import { identityKey, identityOf, type OpenChain, printable } from '@downfold/chain';
import type { BitmapContent, BitmapFacts, Image } from '@downfold/image';
import { isQcow2 } from '@downfold/qcow2';
import { byteLength, SECTOR_BYTES } from '@downfold/units';
import { type Copied, copyDisk } from '../copy/copy-disk.ts';
import { chainSource, concatenated, type DiskSource } from '../copy/disk-source.ts';
import { salvaged } from '../copy/salvage.ts';
import { assertNotAmong, openSource } from '../copy/sources.ts';
import {
  assertFits,
  cutsCluster,
  newTarget,
  presentTarget,
  type Target,
  targetPath,
} from '../copy/target.ts';
import { asksForHelp, assertNoDataFile, settingsHelp, settingsOf } from '../create-settings.ts';
import { backend, openBelow, shownBy } from '../environment.ts';
import { UsageError } from '../failure.ts';
import { type JobOptions, runJob } from '../job.ts';
import { encryptionFor } from '../new-encryption.ts';
import { backingFor, createOptions, newFormatOf } from '../new-image.ts';
import { parseBytes } from '../output/bytes.ts';
import { print, printError, printJson } from '../output/print.ts';
import { absoluteFrom } from '../paths.ts';
import type { NamedSecret } from '../secrets.ts';

/** Options of `convert`. */
export interface ConvertOptions extends JobOptions {
  readonly format: string;
  readonly targetFormat: string;
  readonly option?: readonly string[];
  readonly backing?: string;
  readonly backingFormat?: string;
  readonly snapshot?: string;
  readonly sparse?: string;
  readonly copyOffload?: boolean;
  readonly compress?: boolean;
  readonly skipCreate?: boolean;
  readonly targetIsZero?: boolean;
  readonly bitmaps?: boolean;
  readonly skipBrokenBitmaps?: boolean;
  readonly salvage?: boolean;
  readonly object?: readonly NamedSecret[];
}

/** `downfold convert`: copies the disk that images show, one after the other, into a new image, which has its name only when it is whole. */
export async function convert(files: readonly string[], options: ConvertOptions): Promise<number> {
  if (asksForHelp(options.option ?? [])) {
    print(settingsHelp(newFormatOf(options.targetFormat).name));
    return 0;
  }
  const sources = files.slice(0, -1);
  const target = files.at(-1) as string;
  if (sources.length === 0) throw new UsageError('Must specify image file name: SOURCE... TARGET');
  const sparseBytes = sparseBytesOf(options.sparse);
  assertTogether(sources, options);
  const left =
    options.skipCreate === true
      ? 'stopped: a part of the target is written'
      : 'stopped: nothing has the name of the copy';
  const copied = await runJob(options, left, async (run) => {
    await using opened = new AsyncDisposableStack();
    const chains: OpenChain[] = [];
    for (const file of sources)
      chains.push(opened.use(await openSource(file, options.format, options, options.snapshot)));
    const path = await targetPath(target);
    await assertNotAmong(path, chains);
    const whole = await sourceOf(chains, target, options);
    const source = options.salvage === true ? salvaged(whole, warningOf(options)) : whole;
    // what cannot be is known before the copy is made
    const bitmaps = await bitmapsOf(chains, options);
    const to = opened.use(await openTarget(path, source.length, target, options));
    assertFits(to, source.length, target);
    const below = cutsCluster(to, source.length) ? await openBelow(to.image, options) : null;
    opened.use(below);
    for (const { facts } of bitmaps) await to.image.bitmaps?.assertCanAdd(facts);
    const done = await copyDisk(source, to.image, {
      sparseBytes,
      compress: options.compress === true,
      fill: shownBy(below),
      targetIsZero: (to.fresh || options.targetIsZero === true) && to.image.backing === null,
      pass: (bytes) => run.throttle.pass(bytes, run.signal),
      onProgress: run.onProgress,
      signal: run.signal,
    });
    if (bitmaps.length > 0)
      await to.image.bitmaps?.add(...bitmaps.map(({ facts, content }) => ({ ...facts, content })));
    await to.finish();
    return { ...done, virtualSize: to.image.geometry.virtualSize, format: to.image.format };
  });
  if (options.output === 'json') printJson(told(target, copied));
  return 0;
}

/** Says what of a source cannot be read, unless that is to be quiet. */
function warningOf({ quiet }: ConvertOptions): (at: number, cause: Error) => void {
  return (at, cause) => {
    if (quiet === true) return;
    printError(
      `downfold: byte ${at} of the disk: ${printable(cause.message)}; the copy has zeros there`,
    );
  };
}

function told(
  filename: string,
  { format, virtualSize, ...copied }: Copied & { readonly format: string; virtualSize: number },
): unknown {
  return { filename, format, 'virtual-size': virtualSize, ...copied };
}

/** As qemu-img's. */
const MOST_SPARSE_BYTES = 16 << 20;

function sparseBytesOf(text = '4k'): number {
  const bytes = parseBytes(text, 'sparse size');
  if (bytes % SECTOR_BYTES === 0 && bytes <= MOST_SPARSE_BYTES) return bytes;
  throw new UsageError(
    `Invalid buffer size for sparse output: '${text}'; multiples of ${SECTOR_BYTES} up to ${MOST_SPARSE_BYTES} are valid`,
  );
}

/** @throws UsageError for options that contradict one another */
function assertTogether(sources: readonly string[], options: ConvertOptions): void {
  const { skipCreate, option, targetIsZero, backing } = options;
  assertOffload(options);
  if (options.compress === true && options.targetFormat !== 'qcow2')
    throw new UsageError('Compression not supported for this file format; -O qcow2 has it');
  if (options.bitmaps === true && sources.length > 1)
    throw new UsageError('--bitmaps goes with one source');
  if (options.skipBrokenBitmaps === true && options.bitmaps !== true)
    throw new UsageError('Use of --skip-broken-bitmaps requires --bitmaps');
  const settings = settingsOf(option ?? [], newFormatOf(options.targetFormat).name);
  assertNoDataFile(settings);
  if (options.compress === true && (settings['preallocation'] ?? 'off') !== 'off')
    throw new UsageError('Compression and preallocation not supported at the same time');
  if (skipCreate === true && option !== undefined)
    throw new UsageError('-o describes a new image, and -n makes none: give one of them');
  if (targetIsZero === true && skipCreate !== true)
    throw new UsageError('--target-is-zero requires use of -n flag');
  if (targetIsZero === true && backing !== undefined)
    throw new UsageError('Cannot use --target-is-zero with a backing file');
  if (sources.length > 1 && (backing !== undefined || options.snapshot !== undefined))
    throw new UsageError('-B and -l go with one source');
}

/** @throws UsageError for what cannot be done by copying within the file system, were it asked to */
function assertOffload({ copyOffload, salvage, sparse, compress }: ConvertOptions): void {
  if (copyOffload !== true) return;
  if (salvage === true) throw new UsageError('Cannot use copy offloading in salvaging mode');
  for (const [option, said] of [
    ['-S', sparse !== undefined],
    ['-c', compress === true],
  ])
    if (said === true) throw new UsageError(`Cannot enable copy offloading when ${option} is used`);
}

/** The persistent bitmaps of the leaf that are to be copied. @throws UsageError where there cannot be any; ImageError when one is broken */
async function bitmapsOf(
  chains: readonly OpenChain[],
  { bitmaps, skipBrokenBitmaps, targetFormat }: ConvertOptions,
): Promise<readonly BitmapCopy[]> {
  if (bitmaps !== true) return [];
  const source = chains[0]?.layers.at(-1)?.image;
  if (source === undefined || !isQcow2(source) || targetFormat !== 'qcow2')
    throw new UsageError('--bitmaps: only qcow2 images have bitmaps');
  const copies: BitmapCopy[] = [];
  for (const facts of await source.bitmaps.list())
    if (!facts.inconsistent || skipBrokenBitmaps !== true)
      copies.push({ facts, content: await source.bitmaps.content(facts.name) });
  return copies;
}

/** One bitmap that is to be copied. */
interface BitmapCopy {
  readonly facts: BitmapFacts;
  readonly content: BitmapContent;
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
  const key = await keyOf(target, name);
  const shared = layers.findIndex(({ facts }) => identityKey(facts.identity) === key);
  if (shared === layers.length - 1)
    throw new UsageError(`-B ${name}: is the image that is copied; there would be nothing to copy`);
  return shared >= 0 ? shared : layers.length - 2;
}

/** Which file a name says that is relative to the directory of the target; null: none. */
async function keyOf(target: string, name: string): Promise<string | null> {
  const identity = await identityOf(absoluteFrom(target, name), backend);
  return identity === null ? null : identityKey(identity);
}

/** @throws UsageError when what is left out of the copy, being in the layer that `-B` names, is not what the target shows there */
async function assertStandsOn(
  image: Image,
  target: string,
  options: ConvertOptions,
): Promise<void> {
  const { backing: name } = options;
  if (name === undefined) return;
  const below = image.backing === null ? null : await keyOf(target, image.backing.name);
  if (below !== null && below === (await keyOf(target, name))) return;
  throw new UsageError(
    `${target}: does not stand on '${name}', so a copy of what lies above that would show something else; leave -B out, or 'downfold rebase' it first`,
  );
}

async function openTarget(
  path: string,
  size: number,
  target: string,
  options: ConvertOptions,
): Promise<Target> {
  if (options.skipCreate === true) {
    const { allow, allowDataFile, secret } = options;
    const access = { allow, allowDataFile, secret };
    await using opened = new AsyncDisposableStack();
    const present = opened.use(await presentTarget(path, options.targetFormat, access));
    await assertStandsOn(present.image, target, options);
    opened.move();
    return present;
  }
  const format = newFormatOf(options.targetFormat);
  const settings = settingsOf(options.option ?? [], format.name);
  const backing = backingFor(target, options, settings);
  // it must be there and be what -F says, and it, and what it stands on, must stay
  if (backing !== null) {
    await using below = await openSource(
      absoluteFrom(target, backing.name),
      backing.format ?? '',
      options,
    );
    await assertNotAmong(path, [below]);
  }
  return await newTarget(
    path,
    format,
    createOptions(
      format,
      settings,
      { virtualSize: byteLength(size), backing },
      encryptionFor(path, format.name, settings, options),
    ),
  );
}
