import { posix } from 'node:path';
import { absolute } from '../paths.ts';
import { CtlError } from './errors.ts';
import type { Server } from './server.ts';

/** What of `query-named-block-nodes` is used here. */
interface NodeFacts {
  readonly 'node-name': string;
  readonly drv: string;
  readonly file: string;
  readonly ro: boolean;
  readonly backing_file?: string;
  readonly image: { readonly 'virtual-size': number; readonly 'actual-size'?: number };
  /** Since QEMU 10.1. */
  readonly children?: readonly { readonly child: string; readonly 'node-name': string }[];
}

/** A node, and what stands above and below it. */
export interface BlockNode {
  readonly name: string;
  readonly facts: NodeFacts;
  /** A layer of a disk; else the file of one, or a filter that a job has put in. */
  readonly isLayer: boolean;
  readonly backing: BlockNode | null;
  /** The guest's device that it is in, in a QEMU that has one. */
  readonly device: string | null;
  /** Ids of the exports that serve it. */
  readonly exports: readonly string[];
}

/** Drivers of nodes that are no layers: where bytes are, and what jobs put above layers for a while. */
const NO_LAYERS: ReadonlySet<string> = new Set(
  'file host_device host_cdrom nbd http https ftp ftps iscsi rbd ssh nfs gluster nvme io_uring commit_top mirror_top copy-before-write backup-top cor_filter copy-on-read throttle preallocate blkdebug blklogwrites'.split(
    ' ',
  ),
);

/** All nodes of a server. */
export async function nodesOf(server: Server): Promise<readonly BlockNode[]> {
  const all = await server.execute<readonly NodeFacts[]>('query-named-block-nodes', { flat: true });
  const exports =
    await server.offered<readonly { id: string; 'node-name': string }[]>('query-block-exports');
  const devices =
    await server.offered<readonly { device: string; inserted?: { 'node-name'?: string } }[]>(
      'query-block',
    );
  const nodes = all.map((facts) => ({
    name: facts['node-name'],
    facts,
    isLayer: !NO_LAYERS.has(facts.drv),
    backing: null as BlockNode | null,
    device:
      devices?.find(({ inserted }) => inserted?.['node-name'] === facts['node-name'])?.device ||
      null,
    exports: (exports ?? [])
      .filter((one) => one['node-name'] === facts['node-name'])
      .map(({ id }) => id),
  }));
  for (const node of nodes) node.backing = backingOf(node, nodes);
  return nodes;
}

/** By the graph where the server tells it, else by the name of the file: the layer before its file. */
function backingOf({ facts }: BlockNode, nodes: readonly BlockNode[]): BlockNode | null {
  if (facts.children !== undefined) return layerBelow(facts, nodes);
  const below = facts.backing_file;
  if (below === undefined) return null;
  const found = nodes.filter((one) => one.facts !== facts && one.facts.file === below);
  return found.find(({ isLayer }) => isLayer) ?? found[0] ?? null;
}

/** Through the filters that jobs put in, which have one child. */
function layerBelow({ children = [] }: NodeFacts, nodes: readonly BlockNode[]): BlockNode | null {
  const child = children.find((one) => one.child === 'backing');
  const below = nodes.find(({ name }) => name === child?.['node-name']) ?? null;
  if (below === null || below.isLayer || below.facts.children?.length === 0) return below;
  return layerBelow(below.facts, nodes) ?? below;
}

/** The layers of a disk from this one down. */
function chainOf(top: BlockNode): readonly BlockNode[] {
  const chain: BlockNode[] = [];
  for (let node: BlockNode | null = top; node !== null; node = node.backing) {
    // no server has one, but none is trusted
    if (chain.includes(node)) break;
    chain.push(node);
  }
  return chain;
}

/** A disk, by its active layer. @throws CtlError `CTL_NO_NODE` that names those there are */
export async function findDisk(server: Server, name: string): Promise<BlockNode> {
  const nodes = await nodesOf(server);
  const active = nodes.filter(
    (node) => node.isLayer && !nodes.some(({ backing }) => backing === node),
  );
  return find(nodes, active, name, 'disk');
}

/** A layer of a disk. @throws CtlError `CTL_NO_NODE` that names those there are */
export function findLayer(disk: BlockNode, name: string): BlockNode {
  const chain = chainOf(disk);
  return find(chain, chain, name, `layer of '${disk.name}'`);
}

/** By its name, its device, or its file: the path from here, or the bare name where only one has it. */
function find(
  nodes: readonly BlockNode[],
  known: readonly BlockNode[],
  name: string,
  what: string,
): BlockNode {
  const named = nodes.find((node) => node.name === name || node.device === name);
  if (named !== undefined) return named;
  const layers = nodes.filter(({ isLayer }) => isLayer);
  const file = layers.find(({ facts }) => facts.file === name || facts.file === absolute(name));
  if (file !== undefined) return file;
  const alike = layers.filter(({ facts }) => posix.basename(facts.file) === name);
  if (alike.length === 1) return alike[0] as BlockNode;
  throw new CtlError(
    'CTL_NO_NODE',
    `there is no ${what} called '${name}'; there are: ${known.map(titleOf).join(', ') || 'none'}`,
    { known: known.map((one) => one.name) },
  );
}

function titleOf({ name, facts }: BlockNode): string {
  return `'${name}' (${facts.file})`;
}
