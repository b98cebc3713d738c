import {
  about,
  bool,
  type Command,
  type Commands,
  command,
  list,
  optional,
  struct,
} from '@downfold/qmp';
import type { Graph } from '../../graph/graph.ts';
import { type FileNode, type GraphNode, layerOf } from '../../graph/node.ts';
import { blockStats } from '../../metrics/block-stats.ts';
import type { Exports } from '../../nbd/exports.ts';
import type { ServerParts } from '../context.ts';
import { blockStats as blockStatsType } from '../schema/stats.ts';

/** `query-block` and `query-blockstats`. There are no devices of guests, as in qemu-storage-daemon. */
export function statsCommands({ graph, exports }: ServerParts): Commands {
  return {
    'query-block': command({
      about:
        'Tells of devices of guests: there are none; `query-named-block-nodes` tells of nodes.',
      returns: list(struct({}, 'BlockInfo')),
      run: () => [],
    }) as Command,
    'query-blockstats': command({
      about:
        "Tells what became of requests. Those of a disk's exports are those of its active layer, and `wr_highest_offset` of a file is its length.",
      arguments: struct({
        'query-nodes': about(
          'of nodes; default false: of devices of guests, which there are none of',
          optional(bool),
        ),
      }),
      returns: list(blockStatsType),
      run: ({ 'query-nodes': ofNodes = false }) => (ofNodes ? statsOf(graph, exports) : []),
    }) as Command,
  };
}

async function statsOf(graph: Graph, exports: Exports): Promise<readonly object[]> {
  return Promise.all([...graph].map((node) => statsOfNode(graph, exports, node)));
}

async function statsOfNode(graph: Graph, exports: Exports, node: GraphNode): Promise<object> {
  const named = { 'node-name': node.name };
  if (node.kind === 'filter') return { ...named, stats: blockStats([]) };
  if (node.kind === 'file') return statsOfFile(graph, node);
  const isActive = node.disk !== null && layerOf(node)?.layer === node.disk.active;
  const ofDisk = exports.measured.filter(({ disk }) => isActive && disk === node.disk);
  return {
    ...named,
    stats: blockStats(ofDisk.map(({ counters }) => counters)),
    parent: await statsOfFile(graph, node.file),
  };
}

async function statsOfFile(graph: Graph, file: FileNode): Promise<object> {
  const layer = graph.layerIn(file);
  const length = layer === null ? 0 : await layer.image.file.length();
  return { 'node-name': file.name, stats: blockStats([], length) };
}
