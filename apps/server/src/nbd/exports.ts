import { mkdir } from 'node:fs/promises';
import { dirname } from 'node:path';
import { NbdError, type NbdErrorCode, type NbdServer, serveNbd } from '@downfold/nbd';
import { ServerError } from '../errors.ts';
import type { Disk, DiskUser } from '../graph/disk.ts';
import type { Graph } from '../graph/graph.ts';
import { codeOf, type Log, lineOf } from '../log.ts';
import { ExportCounters } from '../metrics/export-counters.ts';
import type { Objects } from '../options/objects.ts';
import type {
  ExportInfo,
  ExportOptions,
  NbdServerOptions,
  SocketAddress,
} from '../qmp/schema/exports.ts';
import { diskExport } from './disk-export.ts';

/** Why clients are dropped. */
const DROPPED: readonly NbdErrorCode[] = ['NBD_PROTOCOL', 'NBD_LIMIT', 'NBD_CONNECT', 'NBD_TLS'];

/** A disk that is served. */
interface Served extends DiskUser {
  readonly id: string;
  readonly name: string;
  /** Its disk, while it has one. */
  readonly disk: Disk;
  readonly counters: ExportCounters;
  shuttingDown: boolean;
}

/** The NBD server, of which there is one at most, and what it serves. */
export class Exports implements AsyncDisposable {
  readonly #graph: Graph;
  readonly #objects: Objects;
  readonly #deleted: (id: string) => void;
  readonly #log: Log;
  readonly #served: Map<string, Served> = new Map();
  /** Clients that were turned away or cut off, by why. */
  readonly dropped: Map<NbdErrorCode, number> = new Map(DROPPED.map((code) => [code, 0]));
  #server: NbdServer | null = null;

  /** @param deleted told of each export that is gone */
  constructor(graph: Graph, objects: Objects, deleted: (id: string) => void, log: Log) {
    this.#graph = graph;
    this.#objects = objects;
    this.#deleted = deleted;
    this.#log = log;
  }

  /** Where the server listens; null: there is none. */
  get server(): NbdServer | null {
    return this.#server;
  }

  /** @throws ServerError `SERVER_EXPORT`, `SERVER_OBJECT`; NbdError */
  async start(options: NbdServerOptions): Promise<void> {
    if (this.#server !== null) throw new ServerError('SERVER_EXPORT', 'NBD server already running');
    const { addr, 'tls-creds': creds, 'max-connections': most = 100 } = options;
    // a directory that is made is nobody else's
    if (addr.type === 'unix') await mkdir(dirname(addr.path), { recursive: true, mode: 0o700 });
    this.#server = await serveNbd({
      listen: endpointOf(addr),
      ...(creds === undefined ? {} : { tls: this.#objects.tls(creds) }),
      limits: { clients: most === 0 ? Number.POSITIVE_INFINITY : most },
      onError: (error) => this.#failed(error),
      onAnswer: (name) => this.#named(name).counters.answered,
    });
  }

  /** Ends the server with all exports. */
  async stop(): Promise<void> {
    if (this.#server === null) throw noServer();
    await this.#stop();
  }

  /** @throws ServerError, NbdError */
  async add(options: ExportOptions): Promise<void> {
    const { id, 'node-name': nodeName, writable = false, name = nodeName } = options;
    const server = this.#server;
    if (server === null) throw noServer();
    if (this.#served.has(id))
      throw new ServerError('SERVER_EXPORT', `Block export id '${id}' is already in use`, { id });
    const { node, disk } = this.#graph.root(nodeName);
    if (writable && node.readOnly)
      throw new ServerError('SERVER_NODE', `Block node is read-only: '${nodeName}'`, { id });
    const label = `export '${id}'`;
    const one: Served = {
      id,
      name,
      disk,
      label,
      counters: new ExportCounters(),
      job: null,
      shuttingDown: false,
    };
    const device = await disk.use(one, { writes: writable });
    try {
      const direct = await device.direct();
      server.add(
        name,
        diskExport(device, {
          writable,
          description: options.description ?? '',
          allocationDepth: options['allocation-depth'] ?? false,
          writethrough: options.writethrough ?? false,
          discards: () => this.#graph.nodeOf(disk.active).discard,
          direct,
        }),
      );
    } catch (cause) {
      disk.release(one);
      throw cause;
    }
    this.#served.set(id, one);
  }

  /**
   * Begins to end an export; `deleted` tells when it is gone. `safe`: only one that nobody is connected to.
   * @throws ServerError `SERVER_EXPORT`, `SERVER_IN_USE`
   */
  remove(id: string, mode: 'safe' | 'hard'): void {
    const one = this.#served.get(id);
    if (one === undefined)
      throw new ServerError('SERVER_EXPORT', `Export '${id}' is not found`, { id });
    if (one.shuttingDown)
      throw new ServerError('SERVER_EXPORT', `Export '${id}' is already shutting down`, { id });
    if (mode === 'safe' && (this.#server?.clientsOf(one.name) ?? 0) > 0)
      throw new ServerError('SERVER_IN_USE', `export '${id}' still in use`, { id });
    void this.#end(one);
  }

  /** The id of the export of a name. @throws ServerError `SERVER_EXPORT` */
  idOf(name: string): string {
    return this.#named(name).id;
  }

  list(): readonly ExportInfo[] {
    return [...this.#served.values()].map(({ id, disk, shuttingDown }) => ({
      id,
      type: 'nbd',
      'node-name': this.#graph.nodeOf(disk.active).name,
      'shutting-down': shuttingDown,
    }));
  }

  /** What became of the requests of each export, and how many clients use it. */
  get measured(): readonly {
    readonly id: string;
    readonly disk: Disk;
    readonly counters: ExportCounters;
    readonly clients: number;
  }[] {
    this.#server?.settle();
    return [...this.#served.values()].map(({ id, name, disk, counters }) => ({
      id,
      disk,
      counters,
      clients: this.#server?.clientsOf(name) ?? 0,
    }));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#server !== null) await this.#stop();
  }

  #named(name: string): Served {
    const named = [...this.#served.values()].filter((one) => one.name === name);
    // the name may be used again while what had it goes
    const one = named.find(({ shuttingDown }) => !shuttingDown) ?? named[0];
    if (one !== undefined) return one;
    throw new ServerError('SERVER_EXPORT', `Export '${name}' is not found`, { name });
  }

  /** A client was dropped, which is the client's matter, or an export failed, which is ours. */
  #failed(error: unknown): void {
    const count = error instanceof NbdError ? this.dropped.get(error.code) : undefined;
    if (error instanceof NbdError && count !== undefined) {
      this.dropped.set(error.code, count + 1);
      this.#log.info(`NBD: ${lineOf(error)}`, codeOf(error));
    } else this.#log.error(`NBD: ${lineOf(error)}`, codeOf(error));
  }

  async #end(one: Served): Promise<void> {
    one.shuttingDown = true;
    try {
      await this.#server?.remove(one.name);
    } catch (cause) {
      this.#log.error(`${one.label}: ${lineOf(cause)}`, { export: one.id, ...codeOf(cause) });
    }
    this.#gone(one);
  }

  #gone(one: Served): void {
    if (!this.#served.delete(one.id)) return;
    one.disk.release(one);
    this.#deleted(one.id);
  }

  async #stop(): Promise<void> {
    const server = this.#server;
    this.#server = null;
    await server?.close();
    for (const one of [...this.#served.values()]) this.#gone(one);
  }
}

function endpointOf(addr: SocketAddress): Parameters<typeof serveNbd>[0]['listen'] {
  switch (addr.type) {
    case 'unix':
      return { path: addr.path };
    case 'inet':
      return { host: addr.host, port: portOf(addr.port) };
    case 'fd':
      return { fd: descriptorOf(addr.str) };
  }
}

function portOf(text: string): number {
  const port = Number(text);
  if (/^\d+$/.test(text) && port < 65_536) return port;
  throw new ServerError('SERVER_EXPORT', `'${text}' is no port`);
}

/** Descriptors that others may have opened: not those of this process's own input and output. */
function descriptorOf(text: string): number {
  const fd = Number(text);
  if (/^\d+$/.test(text) && fd > 2) return fd;
  throw new ServerError('SERVER_EXPORT', `'${text}' is no descriptor of a socket that listens`);
}

function noServer(): ServerError {
  return new ServerError('SERVER_EXPORT', 'NBD server not running');
}
