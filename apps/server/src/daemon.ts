import { rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { resolve } from 'node:path';
import { DataFileLocks } from '@downfold/chain';
import { listenQmp, type QmpServer } from '@downfold/qmp';
import type { Access } from './environment.ts';
import { ServerError } from './errors.ts';
import { Graph } from './graph/graph.ts';
import { ImageSecrets } from './graph/image-secrets.ts';
import { BlockJobs } from './jobs/block-jobs.ts';
import { Journals, type Named } from './jobs/journals.ts';
import { recover } from './jobs/recover.ts';
import type { Log } from './log.ts';
import { serveMetrics } from './metrics/listener.ts';
import type { Observed, Status } from './metrics/observed.ts';
import { Exports } from './nbd/exports.ts';
import { Objects } from './options/objects.ts';
import { DISK, type Settings } from './options/settings.ts';
import type { ServerEvents } from './qmp/events.ts';
import { qmpServer, tellOf } from './qmp/server.ts';

/** A server that serves. */
export interface Daemon {
  /** Ends when a client said `quit`. */
  readonly quit: Promise<void>;
  /**
   * Stops: no new clients, jobs stop at a consistent point and keep their journals, requests under way are answered, and what clients wrote is
   * flushed. @throws DeviceError `DEVICE_FLUSH_FAILED`
   */
  stop(): Promise<void>;
}

/** Starts everything that the command line asks for; on failure all of it is stopped again. */
export async function startDaemon(
  settings: Settings,
  sockets: ReadonlyMap<string, number>,
  log: Log,
): Promise<Daemon> {
  assertReachable(settings, sockets);
  const quit = Promise.withResolvers<void>();
  await using stack = new AsyncDisposableStack();
  const objects = new Objects();
  for (const options of settings.objects) objects.add(options);
  const secrets = new ImageSecrets(objects, settings.secrets);
  const access: Access = { ...settings, secrets, dataFileLocks: new DataFileLocks() };

  // disposed of in the reverse order: no more commands, jobs, clients, disks
  const graph = new Graph(access, log);
  const exports = new Exports(
    graph,
    objects,
    (id) => qmp.emit('BLOCK_EXPORT_DELETED', { id }),
    log,
  );
  const journals = new Journals(graph);
  const jobs = new BlockJobs(
    graph,
    { ...access, pools: settings.pools },
    (event) => tellOf(event, qmp),
    log,
  );
  const qmp: QmpServer<ServerEvents> = qmpServer(
    { objects, graph, exports, jobs, journals, quit: () => quit.resolve() },
    log,
  );
  const status: Status = { phase: 'starting', journals: 0 };
  // first, and so the last to go: it tells of starting and stopping too
  await measure({ graph, exports, jobs, status }, settings, sockets, stack, log);
  stack.use(graph);
  stack.use(exports);
  stack.defer(() => jobs.stop());
  stack.use(qmp);

  journals.named = await makeNodes(settings, graph, log);
  const fd = sockets.get('nbd');
  const nbdServer =
    fd === undefined ? settings.nbdServer : { addr: { type: 'fd', str: String(fd) } as const };
  if (nbdServer !== null) await exports.start(nbdServer);
  for (const options of settings.exports) {
    if (nbdServer !== null || settings.disk === null) await exports.add(options);
  }
  status.journals = await recover({ journals, jobs, resume: settings.resume, log });
  const onError = (error: Error): void => log.warn(`QMP: a client is lost: ${error.message}`);
  for (const path of settings.monitors) {
    stack.use(await listenQmp(qmp, { path, onError }));
    log.info(`QMP at unix:${resolve(path)}`);
  }
  const qmpFd = sockets.get('qmp');
  if (qmpFd !== undefined) stack.defer(await serveInherited(qmp, qmpFd, onError));
  if (settings.pidfile !== null) await writePidfile(settings.pidfile, stack);
  if (exports.server !== null) log.info(`NBD at ${uriOf(exports.server.endpoint, settings)}`);
  status.phase = 'serving';
  const all = stack.move();
  const stop = (): Promise<void> => {
    status.phase = 'shutting down';
    return all.disposeAsync();
  };
  return { quit: quit.promise, stop };
}

/** Serves metrics where the command line, or a socket of the supervisor, says so. */
async function measure(
  observed: Observed,
  { metrics }: Settings,
  sockets: ReadonlyMap<string, number>,
  stack: AsyncDisposableStack,
  log: Log,
): Promise<void> {
  const fd = sockets.get('metrics');
  const at = fd === undefined ? metrics : ({ type: 'fd', str: String(fd) } as const);
  if (at === null) return;
  const { address } = stack.use(await serveMetrics(at, observed, log));
  log.info(`metrics at ${address}`);
}

/** @throws ServerError `SERVER_USAGE` when nobody could ever talk to the server */
function assertReachable(settings: Settings, sockets: ReadonlyMap<string, number>): void {
  if (settings.nbdServer !== null || settings.monitors.length > 0 || sockets.size > 0) return;
  throw new ServerError(
    'SERVER_USAGE',
    'nobody could reach it: say --nbd, --qmp, --nbd-server or --monitor; --help has examples',
  );
}

/** The nodes of the command line. Resolves with the image that the short form named, if it is not the disk any more. */
async function makeNodes(
  { disk, blockdevs }: Settings,
  graph: Graph,
  log: Log,
): Promise<Named | null> {
  for (const options of blockdevs) await graph.add(options);
  if (disk === null) return null;
  const { named, path } = await graph.addDisk(DISK, disk.file, disk.format);
  if (named === path) return null;
  log.warn(`${named}: was committed, and is not the disk any more: serving '${path}', which is`, {
    image: path,
  });
  return { path: named, disk: graph.root(DISK).disk };
}

async function writePidfile(path: string, stack: AsyncDisposableStack): Promise<void> {
  await writeFile(path, `${process.pid}\n`, { mode: 0o644 });
  stack.defer(() => rm(path, { force: true }));
}

/** QMP over a socket that a supervisor listens on; its access is the supervisor's matter. */
async function serveInherited(
  qmp: QmpServer<ServerEvents>,
  fd: number,
  onError: (error: Error) => void,
): Promise<() => Promise<void>> {
  const server = createServer({ allowHalfOpen: true }, (socket) => void qmp.serve(socket));
  await new Promise<void>((done, failed) => {
    server.once('error', failed);
    server.listen({ fd }, done);
  });
  server.on('error', onError);
  return async () => void server.close();
}

/** The address as NBD clients take it. */
function uriOf(
  endpoint: NonNullable<Exports['server']>['endpoint'],
  { nbdServer, disk }: Settings,
): string {
  const tls = nbdServer?.['tls-creds'] === undefined ? '' : 's';
  const name = disk === null ? '' : '/';
  if ('fd' in endpoint) return `descriptor ${endpoint.fd}, a Unix socket of the supervisor`;
  if ('path' in endpoint) return `nbd${tls}+unix:///?socket=${resolve(endpoint.path)}`;
  const host = endpoint.host.includes(':') ? `[${endpoint.host}]` : endpoint.host;
  return `nbd${tls}://${host}:${endpoint.port}${name}`;
}
