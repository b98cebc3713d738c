import { posix } from 'node:path';
import { type ChainLayer, identityKey } from '@downfold/chain';
import { isUrl } from '@downfold/storage';
import { ServerError } from '../errors.ts';
import type { ProtocolName } from '../qmp/schema/nodes.ts';
import type { Disk, JobUse } from './disk.ts';
import { type FileNode, type GraphNode, type ImageNode, layerOf } from './node.ts';

/** QEMU's rule for names, without its limit of 31 bytes. */
const NAME = /^[A-Za-z][A-Za-z0-9._-]*$/;

/** Nodes by name, and by the layers that they are. */
export class NodeTable {
  protected readonly nodes: Map<string, GraphNode> = new Map();

  /** In the order in which they were made. */
  [Symbol.iterator](): IterableIterator<GraphNode> {
    return this.nodes.values();
  }

  /** The disks, each once. */
  get disks(): readonly Disk[] {
    const disks = [...this.nodes.values()].map((node) =>
      node.kind === 'image' ? node.disk : null,
    );
    return [...new Set(disks.filter((disk) => disk !== null))];
  }

  find(name: string): GraphNode | undefined {
    return this.nodes.get(name);
  }

  /** @throws ServerError `SERVER_NODE` */
  node(name: string): GraphNode {
    const node = this.nodes.get(name);
    if (node !== undefined) return node;
    throw new ServerError('SERVER_NODE', `Cannot find device='${name}' nor node-name='${name}'`, {
      node: name,
    });
  }

  /** The node of a layer. */
  nodeOf(layer: ChainLayer): ImageNode {
    const node = this.known(layer);
    if (node !== null) return node;
    const { path } = layer.facts;
    throw new ServerError('SERVER_NODE', `${path}: has no node`, { image: path });
  }

  /** The layer whose image is in a file; null: no disk has it. */
  layerIn(file: FileNode): ChainLayer | null {
    for (const node of this.nodes.values())
      if (node.kind === 'image' && node.file === file) return layerOf(node)?.layer ?? null;
    return null;
  }

  /** What a client calls the layer at a path. */
  nameOf(path: string): string {
    for (const node of this.nodes.values())
      if (node.kind === 'image' && node.disk !== null && node.file.path === path) return node.name;
    return path;
  }

  /** The active layer of a disk, by its name. @throws ServerError `SERVER_NODE` */
  root(name: string): { readonly node: ImageNode; readonly disk: Disk } {
    const node = this.node(name);
    const disk = node.kind === 'image' ? node.disk : null;
    if (node.kind === 'image' && disk !== null && layerOf(node)?.layer === disk.active)
      return { node, disk };
    throw new ServerError(
      'SERVER_NODE',
      `Need a root block node: '${name}' is not the active layer of a disk`,
      { node: name },
    );
  }

  /** @throws ServerError `SERVER_NODE` when the name is no name, or taken */
  addFilter(name: string, disk: Disk, use: JobUse): void {
    this.assertFree(name, false);
    const isActive = use.claim.consumes.includes(disk.active.facts.path);
    const driver = use.type === 'stream' ? 'copy-on-read' : isActive ? 'mirror_top' : 'commit_top';
    this.nodes.set(name, { kind: 'filter', name, driver, disk, use });
  }

  /** The filter of a job that is over. */
  dropFilter(name: string): void {
    this.nodes.delete(name);
  }

  protected known({ facts }: ChainLayer): ImageNode | null {
    const key = identityKey(facts.identity);
    for (const node of this.nodes.values())
      if (node.kind === 'image' && node.disk !== null && node.identity === key) return node;
    return null;
  }

  protected addFile(path: string, name: string): FileNode {
    const node: FileNode = {
      kind: 'file',
      driver: protocolOf(path),
      name,
      implicit: true,
      filename: path,
      path,
      readOnly: false,
    };
    this.nodes.set(name, node);
    return node;
  }

  protected drop(node: ImageNode): void {
    node.disk = null;
    this.nodes.delete(node.name);
    if (node.file.implicit) this.nodes.delete(node.file.name);
  }

  protected assertFree(name: string, implicit: boolean): void {
    if (!implicit && !NAME.test(name))
      throw new ServerError('SERVER_NODE', `Invalid node-name: '${name}'`, { node: name });
    if (this.nodes.has(name))
      throw new ServerError('SERVER_NODE', `Duplicate nodes with node-name='${name}'`, {
        node: name,
      });
  }

  /** A name that no user can give, and that tells a person what it is. */
  protected freeName(path: string): string {
    const name = `#${isUrl(path) ? path : posix.basename(path)}`;
    for (let next = 1; ; next++) {
      const free = next === 1 ? name : `${name}.${next}`;
      if (!this.nodes.has(free)) return free;
    }
  }
}

function protocolOf(path: string): ProtocolName {
  if (!isUrl(path)) return 'file';
  if (path.startsWith('nbd')) return 'nbd';
  return path.startsWith('https:') ? 'https' : 'http';
}
