import type { ChainLayer } from '@downfold/chain';
import { CommitError, type CommitPlan, type Relink } from '@downfold/commit';
import type { JobType } from '@downfold/job';
import {
  anything,
  type Command,
  command,
  optional,
  QmpError,
  struct,
  type Type,
} from '@downfold/qmp';
import type { Disk } from '../../graph/disk.ts';
import type { Graph } from '../../graph/graph.ts';
import { layerOf } from '../../graph/node.ts';
import type { DiskRequest } from '../../jobs/block-jobs.ts';
import { claimFor, type Ends } from '../../jobs/place.ts';
import type { ServerParts } from '../context.ts';
import {
  type CommitArguments,
  commitArguments,
  type JobMembers,
  type StreamArguments,
  streamArguments,
} from '../schema/jobs.ts';
import { startOptions } from './start.ts';

/** What a command answers that starts a job: nothing, or with `x-plan` what it would do. */
interface Started {
  readonly 'x-plan'?: unknown;
}

const started: Type<Started> = struct({ 'x-plan': optional(anything) });

/** `block-commit` and `block-stream`. */
export function blockJobCommands(
  parts: ServerParts,
): Readonly<Record<'block-commit' | 'block-stream', Command>> {
  return {
    'block-commit': command({
      about:
        "Starts to commit: the data of the layers above base up to top goes to base. Below the active layer top's overlay then stands on base; of the active layer, once the job is ready and is completed, base takes the place.",
      arguments: commitArguments,
      returns: started,
      run: async (args) => commit(parts, args),
    }) as Command,
    'block-stream': command({
      about:
        'Starts to stream: `device` receives the data of the layers above base, and then stands on base.',
      arguments: streamArguments,
      returns: started,
      run: async (args) => stream(parts, args),
    }) as Command,
  };
}

async function commit(parts: ServerParts, args: CommitArguments): Promise<Started> {
  const disk = rootOf(parts.graph, args.device);
  const { layers } = disk;
  const leaf = layers.length - 1;
  const top = pick(parts.graph, disk, args, 'top') ?? leaf;
  const base = pick(parts.graph, disk, args, 'base') ?? 0;
  if (base === top) throw generic('cannot commit an image into itself');
  if (base > top) throw generic(`'${nameOf(layers, base)}' is not in this backing file chain`);
  const isActive = top === leaf;
  if (isActive && args['backing-file'] !== undefined)
    throw generic("'backing-file' specified, but 'top' is the active layer");
  const strategy = args['x-strategy'] ?? (isActive ? 'active' : 'copy-down');
  if (isActive && strategy !== 'active')
    throw generic(`'x-strategy': the active layer is committed by 'active', not by '${strategy}'`);
  const siblings = args['x-siblings'] ?? 'refuse';
  // the journal lies beside the image that is relinked: each of several jobs has its own
  const overlay = nameOf(layers, Math.min(top + 1, leaf));
  return begin(parts, disk, args, {
    type: 'commit',
    ends: { base, top },
    // they save what siblings read, of all layers
    whole: strategy === 'preserve' || strategy === 'auto',
    relinked: overlay,
    request: {
      file: overlay,
      base: nameOf(layers, base),
      top: nameOf(layers, top),
      strategy,
      keepSiblings: siblings === 'keep',
      invalidateSiblings: siblings === 'invalidate',
      ignoreUnreadable: args['x-ignore-unreadable'] ?? false,
    },
  });
}

async function stream(parts: ServerParts, args: StreamArguments): Promise<Started> {
  const { disk, index } = layerNamed(parts.graph, args.device);
  const { layers } = disk;
  const base = baseOfStream(parts.graph, disk, args);
  if (base < 0 && args['backing-file'] !== undefined)
    throw generic('backing file specified, but streaming the entire chain');
  if (base >= index)
    throw generic(`Node '${nameOf(layers, base)}' is not a backing image of '${args.device}'`);
  const file = nameOf(layers, index);
  if (base === index - 1 && args['backing-file'] === undefined && args['x-plan'] !== true)
    return beginIdle(parts, disk, args, file);
  return begin(parts, disk, args, {
    type: 'stream',
    ends: { base, top: index },
    whole: false,
    relinked: file,
    request: {
      file,
      ...(base < 0 ? {} : { base: nameOf(layers, base) }),
      strategy: args['x-strategy'] ?? 'stream',
    },
  });
}

/** The layer on which the one that receives data shall stand; -1: none. */
function baseOfStream(graph: Graph, disk: Disk, args: StreamArguments): number {
  const base = pick(graph, disk, args, 'base');
  const { bottom } = args;
  if (bottom === undefined) return base ?? -1;
  if (base !== null) throw generic("'bottom' and 'base' are mutually exclusive");
  return (indexOf(graph, disk, bottom) ?? 0) - 1;
}

/** What a command asks for. */
interface Asked {
  readonly type: JobType;
  readonly ends: Ends;
  /** The strategy reads all layers below base too. */
  readonly whole: boolean;
  readonly request: DiskRequest;
  /** Path of the image whose reference is rewritten, which `backing-file` is about. */
  readonly relinked: string;
}

async function begin(
  { jobs }: ServerParts,
  disk: Disk,
  args: JobMembers,
  { type, ends, whole, request, relinked }: Asked,
): Promise<Started> {
  const options = startOptions(args);
  const id = args['job-id'] ?? args.device;
  using place = await jobs.reserve(disk, { id, type, claim: claimFor(disk, type, ends, whole) });
  const plan = await jobs.plan(place, request).catch(inWordsOfQmp);
  if (args['x-plan'] === true) return { 'x-plan': plan };
  await jobs.start(place, renamed(plan, relinked, args['backing-file']), options);
  // it runs before its client hears that it was started
  await Promise.resolve();
  return {};
}

/** As in QEMU a stream that finds nothing to pull is a job all the same, which changes nothing. */
async function beginIdle(
  { jobs }: ServerParts,
  disk: Disk,
  args: JobMembers,
  file: string,
): Promise<Started> {
  const options = startOptions(args);
  const id = args['job-id'] ?? args.device;
  const claim = { consumes: [], relinks: [], stands: [file] };
  using place = await jobs.reserve(disk, { id, type: 'stream', claim });
  await jobs.startIdle(place, options);
  await Promise.resolve();
  return {};
}

/** A disk by its active layer. @throws QmpError `DeviceNotFound` */
function rootOf(graph: Graph, device: string): Disk {
  if (graph.find(device) === undefined)
    throw new QmpError('DeviceNotFound', `Device '${device}' not found`);
  return graph.root(device).disk;
}

/** A layer of a disk by its node. @throws ServerError `SERVER_NODE`, QmpError */
function layerNamed(graph: Graph, device: string): { readonly disk: Disk; readonly index: number } {
  const node = graph.node(device);
  const place = node.kind === 'image' ? layerOf(node) : null;
  if (node.kind !== 'image' || node.disk === null || place === null)
    throw generic(`'${device}' is no layer of a disk`);
  return { disk: node.disk, index: place.index };
}

/** The place of a layer that is named by its node or by its file; null: by neither. */
function pick(
  graph: Graph,
  disk: Disk,
  args: Readonly<Partial<Record<`${'base' | 'top'}${'-node' | ''}`, string>>>,
  which: 'base' | 'top',
): number | null {
  const [node, file] = [args[`${which}-node`], args[which]];
  if (node !== undefined && file !== undefined)
    throw generic(`'${which}-node' and '${which}' are mutually exclusive`);
  if (node !== undefined) return indexOf(graph, disk, node);
  if (file === undefined) return null;
  const found = disk.layers.findIndex(
    ({ facts }, index) =>
      facts.path === file || disk.layers[index + 1]?.image.backing?.name === file,
  );
  if (found >= 0) return found;
  throw generic(
    which === 'top'
      ? `Top image file ${file} not found`
      : `Can't find '${file}' in the backing chain`,
  );
}

function indexOf(graph: Graph, disk: Disk, name: string): number {
  const node = graph.node(name);
  const found = node.kind === 'image' && node.disk === disk ? layerOf(node) : null;
  if (found !== null) return found.index;
  throw generic(`'${name}' is not in this backing file chain`);
}

function nameOf(layers: readonly ChainLayer[], index: number): string {
  return (layers[index] as ChainLayer).facts.path;
}

/** What the engine says to users of the command line, to those of QMP. */
function inWordsOfQmp(cause: unknown): never {
  if (!(cause instanceof CommitError)) throw cause;
  const { images } = cause.details;
  const named = Array.isArray(images) ? images.join(', ') : String(images);
  const say = (what: string): never => {
    throw new QmpError('GenericError', what, cause);
  };
  if (cause.code === 'COMMIT_STRANDS')
    say(
      `other images would not read any more what they read: ${named}; remove those that nobody needs, or say with 'x-siblings' to keep what they read, or to invalidate them`,
    );
  if (cause.code === 'COMMIT_UNREADABLE')
    say(
      `other images may read through what changes, and cannot be read to find out: ${named}; repair them, move them away, or say 'x-ignore-unreadable'`,
    );
  if (cause.code === 'COMMIT_INTERRUPTED_BEFORE')
    say(
      `${cause.details['image']}: an earlier job was interrupted; go on with it: x-journal-resume, or give it up: x-journal-abort`,
    );
  throw cause;
}

/** The plan with another name for the backing file of the image at `overlay`. */
function renamed(plan: CommitPlan, overlay: string, backingFile: string | undefined): CommitPlan {
  if (backingFile === undefined) return plan;
  const node = plan.images.find(({ path }) => path === overlay)?.node;
  const relinks = plan.relinks.map(
    (relink): Relink =>
      relink.overlay === node && relink.to !== null
        ? { ...relink, to: { ...relink.to, name: backingFile } }
        : relink,
  );
  return { ...plan, relinks };
}

function generic(message: string): QmpError {
  return new QmpError('GenericError', message);
}
