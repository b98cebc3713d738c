import { type Export, type NbdServer, type ServerLimits, serveNbd } from '../src/index.ts';
import { scratch } from './support.ts';

/** A server of one disk, `disk`. */
export interface Stage<Disk extends Export> extends AsyncDisposable {
  readonly path: string;
  readonly disk: Disk;
  readonly server: NbdServer;
  /** What it reported. */
  readonly errors: unknown[];
}

/** @param grace milliseconds that its clients have when the block ends */
export async function stageOf<Disk extends Export>(
  disk: Disk,
  limits: ServerLimits,
  grace: number,
): Promise<Stage<Disk>> {
  const files = scratch();
  const path = files.path('nbd');
  const errors: unknown[] = [];
  const server = await serveNbd({
    listen: { path },
    exports: [['disk', disk]],
    limits,
    onError: (error) => errors.push(error),
  });
  return {
    path,
    disk,
    server,
    errors,
    async [Symbol.asyncDispose]() {
      await server.close({ grace });
      files[Symbol.dispose]();
    },
  };
}
