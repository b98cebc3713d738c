import { posix } from 'node:path';
import { type ChainLayer, identityKey, resolveBacking } from '@downfold/chain';
import type { SectionTimes } from '@downfold/commit';
import { absolutePath } from '@downfold/host';
import { qcow2 } from '@downfold/qcow2';
import { ServerError } from '../errors.ts';
import type { FormatName } from '../qmp/schema/nodes.ts';
import type { Disk } from './disk.ts';
import type { Graph } from './graph.ts';
import { layerOf } from './node.ts';

/**
 * Puts an overlay that is a node on top of the disk whose active layer is `name`. Resolves with how long requests were held; null: there was nobody.
 * @throws ServerError, DeviceError
 */
export async function snapshot(
  graph: Graph,
  name: string,
  overlayName: string,
): Promise<SectionTimes | null> {
  const { disk } = graph.root(name);
  const { disk: overlay, node } = graph.root(overlayName);
  overlay.assertUnused('cannot become the active layer');
  if (overlay === disk || overlay.layers.length > 1)
    throw new ServerError(
      'SERVER_NODE',
      `The overlay '${overlayName}' already has a backing image`,
      {
        node: overlayName,
      },
    );
  if (node.readOnly)
    throw new ServerError('SERVER_NODE', `Block node is read-only: '${overlayName}'`, {
      node: overlayName,
    });
  await assertStandsOn(overlay, disk.active);
  return await disk.cover(overlay);
}

/** How an overlay is made on the way. */
export interface SnapshotFile {
  readonly file: string;
  readonly nodeName: string | undefined;
  readonly format: FormatName;
  /** The file is there, and says itself what it stands on. */
  readonly existing: boolean;
}

/** The same with an overlay that is made now, or is opened now. On failure a file that was made is removed. */
export async function snapshotSync(
  graph: Graph,
  name: string,
  how: SnapshotFile,
): Promise<SectionTimes | null> {
  const { disk, node } = graph.root(name);
  const path = absolutePath(how.file);
  if (!how.existing) await createOverlay(path, disk, how.format);
  const added =
    how.nodeName ?? `snapshot-${posix.basename(path).replaceAll(/[^A-Za-z0-9._-]/g, '-')}`;
  let overlay: ChainLayer | null = null;
  try {
    await graph.add({
      driver: how.format,
      'node-name': added,
      discard: node.discard ? 'unmap' : 'ignore',
      file: { driver: 'file', filename: path },
      backing: null,
    });
    const made = graph.root(added);
    overlay = made.disk.active;
    const held = await snapshot(graph, name, added);
    // as in QEMU: it is there for as long as its disk needs it, and goes when a job drops the layer
    made.node.implicit = true;
    return held;
  } catch (cause) {
    // once it is the active layer it stays, whatever failed after that: it may hold what clients wrote since
    if (overlay !== null && isLayer(disk, overlay)) throw cause;
    if (overlay !== null) await graph.remove(added);
    if (!how.existing) await disk.environment.backend.remove(path);
    throw cause;
  }
}

function isLayer({ layers }: Disk, { facts }: ChainLayer): boolean {
  const key = identityKey(facts.identity);
  return layers.some((layer) => identityKey(layer.facts.identity) === key);
}

async function createOverlay(path: string, disk: Disk, format: FormatName): Promise<void> {
  const { facts, image } = disk.active;
  const { backend } = disk.environment;
  if (format !== qcow2.name)
    throw new ServerError('SERVER_UNSUPPORTED', `Format '${format}' cannot have a backing file`);
  const backing = { name: facts.path, format: facts.format };
  // whoever opens it next has to find what it stands on
  await resolveBacking(backing, path, rootsOf(disk, path), backend);
  // a file that is there already is not ours to remove
  const storage = await backend.create(path, { secret: false });
  try {
    await using stack = new AsyncDisposableStack();
    stack.use(storage);
    const { virtualSize } = image.geometry;
    await using _made = await qcow2.create(storage, { virtualSize, backing });
    await backend.flushDirectory(posix.dirname(path), 'snapshot: its name before it is the disk');
  } catch (cause) {
    // what failed first is what there is to say
    await backend.remove(path).catch(() => undefined);
    throw cause;
  }
}

/** What an overlay says of its backing file counts from the next start on. @throws ServerError `SERVER_NODE` when that would be another disk */
async function assertStandsOn(overlay: Disk, active: ChainLayer): Promise<void> {
  const { facts, image } = overlay.active;
  const { backend } = overlay.environment;
  const refuse = (says: string): never => {
    throw new ServerError(
      'SERVER_NODE',
      `${facts.path}: ${says}, and shall stand on '${active.facts.path}'`,
      { image: facts.path },
    );
  };
  if (image.backing === null) return refuse('names no backing file');
  const at = await resolveBacking(image.backing, facts.path, rootsOf(overlay, facts.path), backend);
  const { identity } = await backend.facts(at.path);
  if (
    identityKey(identity) !== identityKey(active.facts.identity) ||
    at.format !== active.facts.format
  )
    refuse(`stands on '${at.path}' (${at.format})`);
}

function rootsOf({ environment }: Disk, overlay: string): readonly string[] {
  return environment.policy.roots ?? [posix.dirname(overlay)];
}

/** Rewrites what an image of a disk says of its backing file; the string is not checked, as in QEMU. */
export async function changeBackingFile(
  graph: Graph,
  device: string,
  imageName: string,
  backingFile: string,
): Promise<void> {
  const { disk } = graph.root(device);
  const node = graph.node(imageName);
  const place = node.kind === 'image' && node.disk === disk ? layerOf(node) : null;
  if (place === null)
    throw new ServerError('SERVER_NODE', `'${imageName}' is not in the chain of '${device}'`, {
      node: imageName,
    });
  const { backing } = place.layer.image;
  if (backing === null)
    throw new ServerError('SERVER_NODE', `'${imageName}' has no backing file`, { node: imageName });
  await disk.rewriteBacking(place.index, { name: backingFile, format: backing.format });
}
