import type { CommitPlan } from '@downfold/commit';
import { CtlError } from '../../ctl/errors.ts';
import { type BlockNode, findDisk, findLayer } from '../../ctl/nodes.ts';
import { printableText, say } from '../../ctl/say.ts';
import { type Server, withServer } from '../../ctl/server.ts';
import { type WaitOptions, waitFor } from '../../ctl/wait.ts';
import { UsageError } from '../../failure.ts';
import { parseBytes } from '../../output/bytes.ts';
import { humanPlan } from '../../output/plan.ts';
import { printResult } from '../../output/print.ts';
import { parsePlan } from '../../plan-schema.ts';

/** Options of what starts a job. */
interface StartOptions extends WaitOptions {
  /** Node, or file. */
  readonly base?: string;
  readonly id?: string;
  readonly speed?: string;
  readonly onError?: string;
  readonly backingFile?: string;
  readonly plan?: boolean;
  readonly autoFinalize: boolean;
  readonly autoDismiss: boolean;
}

/** Options of `ctl commit`. */
export interface CommitOptions extends StartOptions {
  readonly top?: string;
  readonly shallow?: boolean;
  readonly strategy?: string;
  readonly siblings?: string;
  readonly pivot?: boolean;
  readonly keep?: boolean;
}

/** `downfold ctl commit`: folds the layers of a disk in use down into base. */
export async function commit(device: string, options: CommitOptions): Promise<number> {
  const ending = endingOf(options);
  return withServer(options, async (server) => {
    const disk = await findDisk(server, device);
    const top = options.top === undefined ? disk : findLayer(disk, options.top);
    if (ending !== undefined && top !== disk)
      throw new UsageError(
        `--${ending} goes with a commit of the active layer: '${top.name}' is below it`,
      );
    const base = baseOf(disk, top, options);
    const wish = {
      ...(top === disk ? {} : { 'top-node': top.name }),
      ...(base === null ? {} : { 'base-node': base.name }),
      'x-strategy': options.strategy,
      'x-siblings': options.siblings,
    };
    return begin(server, 'block-commit', disk, device, { ...options, ending }, wish);
  });
}

/** `downfold ctl stream`: pulls data up into the active layer of a disk in use. */
export async function stream(device: string, options: StartOptions): Promise<number> {
  return withServer(options, async (server) => {
    const disk = await findDisk(server, device);
    const base = options.base === undefined ? null : findLayer(disk, options.base);
    const wish = base === null ? {} : { 'base-node': base.name };
    return begin(server, 'block-stream', disk, device, options, wish);
  });
}

/** @throws UsageError for wishes that exclude one another */
function endingOf({ pivot, keep, autoFinalize }: CommitOptions): 'pivot' | 'keep' | undefined {
  const ending = pivot === true ? 'pivot' : keep === true ? 'keep' : undefined;
  if (ending !== undefined && !autoFinalize)
    throw new UsageError(`--${ending} waits for the end, which --no-auto-finalize puts off`);
  return ending;
}

function baseOf(
  disk: BlockNode,
  top: BlockNode,
  { base, shallow }: CommitOptions,
): BlockNode | null {
  if (base !== undefined) return findLayer(disk, base);
  if (shallow !== true) return null;
  if (top.backing !== null) return top.backing;
  throw new CtlError('CTL_NO_NODE', `'${top.name}' has no backing file to commit into`);
}

async function begin(
  server: Server,
  command: 'block-commit' | 'block-stream',
  disk: BlockNode,
  device: string,
  options: StartOptions & { readonly ending?: 'pivot' | 'keep' | undefined },
  wish: object,
): Promise<number> {
  const id = options.id ?? idOf(command, disk);
  const args = {
    'job-id': id,
    // a guest's device by its own name, where it was named so
    device: disk.device === device ? device : disk.name,
    ...wish,
    speed: options.speed === undefined ? undefined : parseBytes(options.speed, 'speed'),
    'on-error': options.onError,
    'backing-file': options.backingFile,
    ...(options.autoFinalize ? {} : { 'auto-finalize': false }),
    ...(options.autoDismiss ? {} : { 'auto-dismiss': false }),
  };
  if (options.plan === true) return showPlan(server, command, args, options);
  const { ending } = options;
  if (options.wait === true || ending !== undefined)
    return waitFor(server, options, { ending }, async () => {
      await server.execute(command, args);
      return id;
    });
  await server.execute(command, args);
  say(options, { id }, [`Job '${id}' started: 'downfold ctl jobs' shows it.`]);
  return 0;
}

/** `commit-NAME`, of what of a name an id may have. */
function idOf(command: string, { name }: BlockNode): string {
  return `${command.replace('block-', '')}-${name.replaceAll(/[^A-Za-z0-9._-]/g, '')}`;
}

async function showPlan(
  server: Server,
  command: string,
  args: object,
  options: StartOptions,
): Promise<number> {
  const answer = await server.execute<{ 'x-plan': unknown }>(command, { ...args, 'x-plan': true });
  const { plan, problem } = parsePlan(answer['x-plan']);
  if (plan === null) throw new UsageError(`the server's plan cannot be read: ${problem}`);
  printResult(options, plan, () => humanPlan(quieted(plan) as CommitPlan));
  return 0;
}

/** The same with no text that could command a terminal. */
function quieted(value: unknown): unknown {
  return JSON.parse(JSON.stringify(value), (_, member: unknown) =>
    typeof member === 'string' ? printableText(member) : member,
  );
}
