import { type ChainLayer, identityKey } from '@downfold/chain';
import type { FormatName, ProtocolName } from '../qmp/schema/nodes.ts';
import type { Disk, JobUse } from './disk.ts';

/** A file, or what a server holds in the place of one, as a node has it. It is opened by the image in it. */
export interface FileNode {
  readonly kind: 'file';
  readonly driver: ProtocolName;
  readonly name: string;
  /** Made on the way, and gone with what it was made for. */
  implicit: boolean;
  /** As it was named. */
  readonly filename: string;
  /** Absolute, links resolved; or a URL. */
  readonly path: string;
  readOnly: boolean;
}

/** An image in a file: a layer of a disk. */
export interface ImageNode {
  readonly kind: 'image';
  readonly name: string;
  implicit: boolean;
  readonly file: FileNode;
  readonly format: FormatName;
  /** Device and inode. */
  readonly identity: string;
  readOnly: boolean;
  readonly discard: boolean;
  /** The object that its secret was named by; null: none was. */
  readonly keySecret: string | null;
  /** Null: a job took the image out of its disk. */
  disk: Disk | null;
}

/** Stands for a job while it works, where QEMU puts a filter over the layer whose data is moved. Nothing can use it. */
export interface FilterNode {
  readonly kind: 'filter';
  readonly name: string;
  /** QEMU's driver for such a job. */
  readonly driver: 'commit_top' | 'mirror_top' | 'copy-on-read';
  readonly disk: Disk;
  readonly use: JobUse;
}

export type GraphNode = FileNode | ImageNode | FilterNode;

/** The layer of a node in its disk, and its place there. Null: none. */
export function layerOf({
  disk,
  identity,
}: ImageNode): { layer: ChainLayer; index: number } | null {
  const layers = disk?.layers ?? [];
  const index = layers.findIndex(({ facts }) => identityKey(facts.identity) === identity);
  const layer = layers[index];
  return layer === undefined ? null : { layer, index };
}
