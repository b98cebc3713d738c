import { posix } from 'node:path';
import { type ChainLayer, identityKey } from '@downfold/chain';
import type { Image } from '@downfold/image';
import { isUrl, StorageError } from '@downfold/storage';
import { backend } from '../environment.ts';
import type { Graph } from './graph.ts';
import { type FileNode, type FilterNode, type GraphNode, type ImageNode, layerOf } from './node.ts';

/** What every node has in common, for clients that expect it. */
const UNUSED = {
  detect_zeroes: 'off',
  bps: 0,
  bps_rd: 0,
  bps_wr: 0,
  iops: 0,
  iops_rd: 0,
  iops_wr: 0,
  cache: { writeback: true, direct: false, 'no-flush': false },
  write_threshold: 0,
} as const;

/** What `query-named-block-nodes` tells of all nodes. @param flat without the images below each */
export async function describeNodes(graph: Graph, flat: boolean): Promise<readonly object[]> {
  const nodes: object[] = [];
  for (const node of graph) nodes.push(await describeNode(graph, node, flat));
  return nodes;
}

async function describeNode(graph: Graph, node: GraphNode, flat: boolean): Promise<object> {
  if (node.kind === 'filter') return describeFilter(node);
  if (node.kind === 'file') return describeFile(graph, node);
  const { name, format, file, disk } = node;
  const place = layerOf(node);
  const layers = place === null ? [] : (disk?.layers.slice(0, place.index + 1) ?? []);
  const below = layers.at(-2);
  return {
    file: file.path,
    'node-name': name,
    ro: isReadOnly(node),
    drv: format,
    ...(below === undefined ? {} : { backing_file: below.facts.path }),
    backing_file_depth: Math.max(0, layers.length - 1),
    encrypted: place?.layer.image.encrypted ?? false,
    ...UNUSED,
    // of an image that a job has let go nothing is known any more
    image: layers.length === 0 ? gone(file.path, format) : await imageInfo(layers, flat),
  };
}

/** A filter over the uppermost layer that a job consumes. */
function describeFilter({ name, driver, disk, use }: FilterNode): object {
  const { consumes } = use.claim;
  const over = disk.layers.findLastIndex(({ facts }) => consumes.includes(facts.path));
  const layer = disk.layers[over] ?? disk.active;
  const { path } = layer.facts;
  return {
    file: path,
    'node-name': name,
    ro: !layer.image.writable,
    drv: driver,
    backing_file: path,
    backing_file_depth: Math.max(0, over + 1),
    encrypted: layer.image.encrypted,
    ...UNUSED,
    image: {
      filename: path,
      format: driver,
      'virtual-size': layer.image.geometry.virtualSize,
    },
  };
}

/** A layer is written while it is the active one of a disk that somebody writes to, or a job writes to it. */
function isReadOnly(node: ImageNode): boolean {
  return node.readOnly || layerOf(node)?.layer.image.writable !== true;
}

async function describeFile(graph: Graph, file: FileNode): Promise<object> {
  const { name, path, readOnly, driver } = file;
  const layer = graph.layerIn(file);
  const length = layer === null ? 0 : await layer.image.file.length();
  return {
    file: path,
    'node-name': name,
    ro: readOnly || layer?.image.writable !== true,
    drv: driver,
    backing_file_depth: 0,
    encrypted: false,
    ...UNUSED,
    image: { filename: path, format: driver, 'virtual-size': length },
  };
}

async function imageInfo(layers: readonly ChainLayer[], flat: boolean): Promise<object> {
  const { facts, image } = layers.at(-1) as ChainLayer;
  const below = layers.slice(0, -1);
  const { backing, geometry } = image;
  const allocated = await allocatedBy(facts.path, image);
  return {
    filename: facts.path,
    format: facts.format,
    'virtual-size': geometry.virtualSize,
    ...(allocated === null ? {} : { 'actual-size': allocated }),
    ...(image.encrypted ? { encrypted: true } : {}),
    ...(geometry.clusterSize > 1 ? { 'cluster-size': geometry.clusterSize } : {}),
    ...(backing === null
      ? {}
      : {
          'backing-filename': backing.name,
          ...(isUrl(facts.path) || isUrl(backing.name)
            ? {}
            : {
                'full-backing-filename': posix.resolve(posix.dirname(facts.path), backing.name),
              }),
          ...(backing.format === null ? {} : { 'backing-filename-format': backing.format }),
        }),
    ...(flat || below.length === 0 ? {} : { 'backing-image': await imageInfo(below, flat) }),
  };
}

/** Bytes on the host; null: the file was moved or unlinked since it was opened, and perhaps another one has its name. */
async function allocatedBy(path: string, { file }: Image): Promise<number | null> {
  try {
    const { identity, allocated } = await backend.facts(path);
    return identityKey(identity) === identityKey(file.identity) ? allocated : null;
  } catch (cause) {
    if (cause instanceof StorageError && cause.code === 'STORAGE_NOT_FOUND') return null;
    throw cause;
  }
}

function gone(filename: string, format: string): object {
  return { filename, format, 'virtual-size': 0 };
}
