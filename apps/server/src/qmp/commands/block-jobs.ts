import type { ChainLayer } from '@downfold/chain';
import { CommitError, type CommitPlan, type Relink } from '@downfold/commit';
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
import type { StartOptions } from '../../jobs/block-jobs.ts';
import type { ServerParts } from '../context.ts';
import {
  type CommitArguments,
  commitArguments,
  type JobMembers,
  type StreamArguments,
  streamArguments,
} from '../schema/jobs.ts';

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
  const disk = diskOf(parts.graph, args.device);
  const { layers } = disk;
  const leaf = layers.length - 1;
  const top = pick(parts.graph, disk, args, 'top') ?? leaf;
  const base = pick(parts.graph, disk, args, 'base') ?? 0;
  if (base === top) throw generic('cannot commit an image into itself');
  if (base > top) throw generic(`'${nameOf(layers, base)}' is not in this backing file chain`);
  const isActive = top === leaf;
  const backingFile = args['backing-file'];
  if (isActive && backingFile !== undefined)
    throw generic("'backing-file' specified, but 'top' is the active layer");
  const strategy = args['x-strategy'] ?? (isActive ? 'active' : 'copy-down');
  if (isActive && strategy !== 'active')
    throw generic(`'x-strategy': the active layer is committed by 'active', not by '${strategy}'`);
  const siblings = args['x-siblings'] ?? 'refuse';
  const plan = await parts.jobs
    .plan(disk, {
      base: nameOf(layers, base),
      top: nameOf(layers, top),
      strategy,
      keepSiblings: siblings === 'keep',
      invalidateSiblings: siblings === 'invalidate',
    })
    .catch(inWordsOfQmp);
  const overlay = layers[top + 1]?.facts.path;
  return begin(parts, disk, args, renamed(plan, overlay, backingFile));
}

async function stream(parts: ServerParts, args: StreamArguments): Promise<Started> {
  const disk = diskOf(parts.graph, args.device);
  const { layers } = disk;
  const backingFile = args['backing-file'];
  const base = baseOfStream(parts.graph, disk, args);
  if (base < 0 && backingFile !== undefined)
    throw generic('backing file specified, but streaming the entire chain');
  const plan = await parts.jobs.plan(disk, {
    ...(base < 0 ? {} : { base: nameOf(layers, base) }),
    strategy: args['x-strategy'] ?? 'stream',
  });
  return begin(parts, disk, args, renamed(plan, disk.active.facts.path, backingFile));
}

/** The layer on which the active one shall stand; -1: none. */
function baseOfStream(graph: Graph, disk: Disk, args: StreamArguments): number {
  const base = pick(graph, disk, args, 'base');
  const { bottom } = args;
  if (bottom === undefined) return base ?? -1;
  if (base !== null) throw generic("'bottom' and 'base' are mutually exclusive");
  return (indexOf(graph, disk, bottom) ?? 0) - 1;
}

async function begin(
  { jobs }: ServerParts,
  disk: Disk,
  args: JobMembers,
  plan: CommitPlan,
): Promise<Started> {
  if (args['x-plan'] === true) return { 'x-plan': plan };
  const { speed, 'on-error': onError } = args;
  if (speed !== undefined && speed < 0)
    throw generic("Parameter 'speed' expects a non-negative value");
  const { 'auto-finalize': autoFinalize, 'auto-dismiss': autoDismiss } = args;
  const options: StartOptions = {
    id: args['job-id'] ?? args.device,
    ...(speed === undefined ? {} : { speed }),
    ...(onError === undefined ? {} : { onError }),
    ...(autoFinalize === undefined ? {} : { autoFinalize }),
    ...(autoDismiss === undefined ? {} : { autoDismiss }),
  };
  await jobs.start(disk, plan, options);
  // it runs before its client hears that it was started
  await Promise.resolve();
  return {};
}

/** A disk by its active layer. @throws QmpError `DeviceNotFound` */
function diskOf(graph: Graph, device: string): Disk {
  if (graph.find(device) === undefined)
    throw new QmpError('DeviceNotFound', `Device '${device}' not found`);
  return graph.root(device).disk;
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
  if (!(cause instanceof CommitError) || cause.code !== 'COMMIT_STRANDS') throw cause;
  const { images } = cause.details;
  const named = Array.isArray(images) ? images.join(', ') : String(images);
  throw new QmpError(
    'GenericError',
    `other images would not read any more what they read: ${named}; remove those that nobody needs, or say with 'x-siblings' to keep what they read, or to invalidate them`,
    cause,
  );
}

/** The plan with another name for the backing file of the image at `overlay`. */
function renamed(
  plan: CommitPlan,
  overlay: string | undefined,
  backingFile: string | undefined,
): CommitPlan {
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
