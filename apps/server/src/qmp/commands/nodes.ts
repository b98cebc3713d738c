import {
  about,
  bool,
  type Command,
  type Commands,
  command,
  list,
  oneOf,
  optional,
  QmpError,
  str,
  struct,
} from '@downfold/qmp';
import { describeNodes } from '../../graph/describe.ts';
import { changeBackingFile, snapshot, snapshotSync } from '../../graph/snapshot.ts';
import type { ServerParts } from '../context.ts';
import { blockDeviceInfo, blockdevOptions, FORMATS } from '../schema/nodes.ts';

/** `blockdev-*`, and what else makes, changes and tells of nodes. */
export function nodeCommands({ graph, jobs }: ServerParts): Commands {
  return {
    'blockdev-add': command({
      about:
        'Makes a node. Images are opened for reading, and locked; for writing, and checked, when something writes to them.',
      arguments: blockdevOptions,
      run: async (options) => void (await graph.add(options)),
    }) as Command,
    'blockdev-del': command({
      about: 'Removes a node that nothing uses.',
      arguments: struct({ 'node-name': str }),
      run: ({ 'node-name': name }) => graph.remove(name),
    }) as Command,
    'blockdev-reopen': command({
      about: 'Changes whether nodes may be written; nothing else of a node can be changed.',
      arguments: struct({ options: list(blockdevOptions) }),
      run: ({ options }) => graph.reopen(options),
    }) as Command,
    'blockdev-snapshot': command({
      about:
        'Puts `overlay`, which is there already and names the disk as its backing file, on top of the disk: the active layer from now on. Nobody has to stop writing.',
      arguments: struct({ node: about('the active layer', str), overlay: str }),
      run: async ({ node, overlay }) =>
        jobs.snapshotTaken(overlay, await snapshot(graph, node, overlay)),
    }) as Command,
    'blockdev-snapshot-sync': command({
      about:
        'The same with an overlay that is made on the way, and not encrypted, whatever lies below; for one that is, make it first.',
      arguments: struct({
        device: about('the active layer, or `node-name`', optional(str)),
        'node-name': optional(str),
        'snapshot-file': str,
        'snapshot-node-name': optional(str),
        format: about('default qcow2', optional(oneOf(FORMATS))),
        mode: about(
          '`existing`: the file is there; default: it is made',
          optional(oneOf(['existing', 'absolute-paths'], 'NewImageMode')),
        ),
      }),
      run: async (args) => {
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
      },
    }) as Command,
    'change-backing-file': command({
      about:
        'Rewrites what an image says of its backing file, and nothing else: the string is not checked, and counts from the next start on.',
      arguments: struct({ device: str, 'image-node-name': str, 'backing-file': str }),
      run: (args) =>
        changeBackingFile(graph, args.device, args['image-node-name'], args['backing-file']),
    }) as Command,
    'query-named-block-nodes': command({
      about: 'Tells of all nodes.',
      arguments: struct({ flat: about('without the images below each', optional(bool)) }),
      returns: list(blockDeviceInfo),
      run: ({ flat = false }) => describeNodes(graph, flat),
    }) as Command,
  };
}
