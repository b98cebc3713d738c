import { posix } from 'node:path';
import { findDisk } from '../../ctl/nodes.ts';
import { say } from '../../ctl/say.ts';
import { type ServerOptions, withServer } from '../../ctl/server.ts';
import { absolute } from '../../paths.ts';

/** Options of `ctl snapshot`. */
export interface SnapshotOptions extends ServerOptions {
  readonly node?: string;
  readonly existing?: boolean;
}

/** QEMU's limit for names of nodes. */
const LONGEST_NAME = 31;

/** `downfold ctl snapshot`: a new active layer for a disk; what was it stays as it is. */
export async function snapshot(
  device: string,
  file: string,
  options: SnapshotOptions,
): Promise<number> {
  return withServer(options, async (server) => {
    const disk = await findDisk(server, device);
    const path = absolute(file);
    const node = options.node ?? nodeNameOf(path);
    await server.execute('blockdev-snapshot-sync', {
      ...(disk.device === device ? { device } : { 'node-name': disk.name }),
      'snapshot-file': path,
      'snapshot-node-name': node,
      format: 'qcow2',
      ...(options.existing === true ? { mode: 'existing' } : {}),
    });
    say(options, { node, file: path, backing: disk.facts.file }, [
      `Snapshot taken: what is written goes to '${path}' (node '${node}') from now on; '${disk.facts.file}' stays as it is.`,
    ]);
    return 0;
  });
}

/** The file's name, as far as a node may be called so. */
function nodeNameOf(path: string): string {
  const name = posix.parse(path).name.replaceAll(/[^A-Za-z0-9._-]/g, '-');
  return (/^[A-Za-z]/.test(name) ? name : `snapshot-${name}`).slice(0, LONGEST_NAME);
}
