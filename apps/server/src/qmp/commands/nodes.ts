import {
  about,
  bool,
  type Command,
  type Commands,
  command,
  int,
  list,
  optional,
  QmpError,
  str,
  struct,
} from '@downfold/qmp';
import { byteLength, SECTOR_BYTES } from '@downfold/units';
import { describeNodes } from '../../graph/describe.ts';
import { changeBackingFile } from '../../graph/snapshot.ts';
import type { ServerParts } from '../context.ts';
import { blockDeviceInfo, blockdevOptions } from '../schema/nodes.ts';

/** @throws QmpError, ServerError, DeviceError */
async function resize(
  { graph, journals }: Pick<ServerParts, 'graph' | 'journals'>,
  name: string,
  size: number,
): Promise<void> {
  const { node, disk } = graph.root(name);
  const refuse = (why: string): never => {
    throw new QmpError('GenericError', why);
  };
  if (size < 0) refuse("Parameter 'size' expects a >0 size");
  if (node.readOnly) refuse('Image is read-only');
  if (size % SECTOR_BYTES !== 0) refuse(`The new size must be a multiple of ${SECTOR_BYTES}`);
  const interrupted = (await journals.find()).find((one) => one.disk === disk);
  if (interrupted !== undefined)
    refuse(
      `${interrupted.path}: a job was interrupted, and knows the size that it had; go on with it: x-journal-resume, or give it up: x-journal-abort`,
    );
  await disk.resize(byteLength(size));
}

/** `blockdev-*`, and what else makes, changes and tells of nodes. */
export function nodeCommands({ graph, journals }: ServerParts): Commands {
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
    'change-backing-file': command({
      about:
        'Rewrites what an image says of its backing file, and nothing else: the string is not checked, and counts from the next start on.',
      arguments: struct({ device: str, 'image-node-name': str, 'backing-file': str }),
      run: (args) =>
        changeBackingFile(graph, args.device, args['image-node-name'], args['backing-file']),
    }) as Command,
    block_resize: command({
      about: 'Makes a disk larger that nobody uses; the new area reads as zeros.',
      arguments: struct({
        device: about('as `node-name`', optional(str)),
        'node-name': about('the active layer of the disk', optional(str)),
        size: about('bytes, a multiple of 512, and no less than the disk has', int),
      }),
      run: (args) => resize({ graph, journals }, args['node-name'] ?? args.device ?? '', args.size),
    }) as Command,
    'query-named-block-nodes': command({
      about: 'Tells of all nodes.',
      arguments: struct({ flat: about('without the images below each', optional(bool)) }),
      returns: list(blockDeviceInfo),
      run: ({ flat = false }) => describeNodes(graph, flat),
    }) as Command,
  };
}
