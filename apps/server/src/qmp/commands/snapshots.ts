import {
  about,
  type Command,
  type Commands,
  command,
  type Infer,
  list,
  oneOf,
  optional,
  QmpError,
  str,
  struct,
  union,
} from '@downfold/qmp';
import { snapshot, snapshotSync } from '../../graph/snapshot.ts';
import type { ServerParts } from '../context.ts';
import { FORMATS } from '../schema/nodes.ts';

const overlaid = struct({ node: about('the active layer', str), overlay: str }, 'BlockdevSnapshot');

const overlaidOnTheWay = struct(
  {
    device: about('the active layer, or `node-name`', optional(str)),
    'node-name': optional(str),
    'snapshot-file': str,
    'snapshot-node-name': optional(str),
    format: about('default qcow2', optional(oneOf(FORMATS))),
    mode: about(
      '`existing`: the file is there; default: it is made',
      optional(oneOf(['existing', 'absolute-paths'], 'NewImageMode')),
    ),
  },
  'BlockdevSnapshotSync',
);

const action = union({
  name: 'TransactionAction',
  tag: 'type',
  tagType: 'TransactionActionKind',
  base: {},
  variants: {
    'blockdev-snapshot': struct({ data: overlaid }, 'BlockdevSnapshotWrapper'),
    'blockdev-snapshot-sync': struct({ data: overlaidOnTheWay }, 'BlockdevSnapshotSyncWrapper'),
  },
});

/** `blockdev-snapshot`, `blockdev-snapshot-sync`, and `transaction`, by which clients ask for them too. */
export function snapshotCommands(parts: ServerParts): Commands {
  return {
    'blockdev-snapshot': command({
      about:
        'Puts `overlay`, which is there already and names the disk as its backing file, on top of the disk: the active layer from now on. Nobody has to stop writing.',
      arguments: overlaid,
      run: (args) => overlay(parts, args),
    }) as Command,
    'blockdev-snapshot-sync': command({
      about:
        'The same with an overlay that is made on the way, and not encrypted, whatever lies below; for one that is, make it first.',
      arguments: overlaidOnTheWay,
      run: (args) => overlayOnTheWay(parts, args),
    }) as Command,
    transaction: command({
      about:
        'Takes a snapshot. Several actions at once are refused: all or none of them cannot be promised.',
      arguments: struct({ actions: about('one, or none', list(action)) }),
      run: ({ actions }) => transact(parts, actions),
    }) as Command,
  };
}

async function overlay({ graph, jobs }: ServerParts, args: Infer<typeof overlaid>): Promise<void> {
  jobs.snapshotTaken(args.overlay, await snapshot(graph, args.node, args.overlay));
}

async function overlayOnTheWay(
  { graph, jobs }: ServerParts,
  args: Infer<typeof overlaidOnTheWay>,
): Promise<void> {
  const name = args['node-name'] ?? args.device;
  if (name === undefined || (args.device !== undefined && args['node-name'] !== undefined))
    throw new QmpError('GenericError', "Either 'device' or 'node-name' must be given");
  const held = await snapshotSync(graph, name, {
    file: args['snapshot-file'],
    nodeName: args['snapshot-node-name'],
    format: args.format ?? 'qcow2',
    existing: args.mode === 'existing',
  });
  jobs.snapshotTaken(args['snapshot-file'], held);
}

/** Clients write to an overlay as soon as it is on top: it cannot be taken away again for the sake of another action that fails. */
async function transact(
  parts: ServerParts,
  actions: readonly Infer<typeof action>[],
): Promise<void> {
  const [only, ...more] = actions;
  if (more.length > 0)
    throw new QmpError(
      'GenericError',
      `a transaction of ${actions.length} actions is not all or nothing here: send them one by one`,
    );
  if (only?.type === 'blockdev-snapshot') await overlay(parts, only.data);
  else if (only !== undefined) await overlayOnTheWay(parts, only.data);
}
