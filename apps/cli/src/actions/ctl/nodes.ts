import { formatBytes, treeLines } from '@downfold/chain';
import { type BlockNode, nodesOf } from '../../ctl/nodes.ts';
import { say } from '../../ctl/say.ts';
import { type ServerOptions, withServer } from '../../ctl/server.ts';

/** Options of `ctl nodes`. */
export interface NodesOptions extends ServerOptions {
  readonly all?: boolean;
}

/** `downfold ctl nodes`: the layers of all disks, who stands on whom, and who is served. */
export async function nodes(options: NodesOptions): Promise<number> {
  return withServer(options, async (server) => {
    const all = await nodesOf(server);
    const shown = options.all === true ? all : all.filter(({ isLayer }) => isLayer);
    say(options, all.map(jsonOf), linesOf(shown));
    return 0;
  });
}

function jsonOf({ facts, backing, device, exports }: BlockNode): object {
  return { ...facts, 'backing-node': backing?.name ?? null, device, exports };
}

function linesOf(shown: readonly BlockNode[]): readonly string[] {
  if (shown.length === 0) return ['No nodes.'];
  return treeLines({
    nodes: shown,
    below: ({ backing }) => (backing !== null && shown.includes(backing) ? backing : null),
    above: (node) => shown.filter(({ backing }) => backing === node),
    label: labelOf,
  });
}

function labelOf({ name, facts, device, exports }: BlockNode): string {
  const { drv, file, ro, image } = facts;
  const parts = [drv, formatBytes(image['virtual-size'])];
  if (image['actual-size'] !== undefined)
    parts.push(`${formatBytes(image['actual-size'])} on disk`);
  parts.push(ro ? 'read-only' : 'read-write');
  if (device !== null) parts.push(`device ${device}`);
  if (exports.length > 0) parts.push(`export ${exports.join(', ')}`);
  return `${name}  (${parts.join(', ')})  ${file}`;
}
