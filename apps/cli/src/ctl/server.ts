import { stat } from 'node:fs/promises';
import {
  connectQmp,
  type QmpClient,
  QmpError,
  type QmpEvent,
  QmpProtocolError,
} from '@downfold/qmp';
import { UsageError } from '../failure.ts';
import { CtlError } from './errors.ts';

/** Options of everything that talks to a server. */
export interface ServerOptions {
  /** Path of its QMP socket; `unix:` may stand before it. */
  readonly socket?: string;
  /** Seconds. */
  readonly timeout?: string;
  readonly output: string;
  readonly quiet?: boolean;
}

/** For who said nothing: a server that serves another client first, as QEMU does, answers nobody else. */
const PATIENCE_SECONDS = 10;

/** A server while it is talked to. */
export class Server {
  readonly path: string;
  /** Aborts when the time of `--timeout` is up; null: it has no end, or has ended and was told of. */
  deadline: AbortSignal | null;
  readonly #client: QmpClient;

  constructor(client: QmpClient, path: string, deadline: AbortSignal | null) {
    this.#client = client;
    this.path = path;
    this.deadline = deadline;
  }

  /** Runs a command. What it returns is as the server says: its shape is believed, its text is not for a terminal. @throws QmpError */
  async execute<T = unknown>(name: string, args: object = {}): Promise<T> {
    const { deadline } = this;
    return (await this.#client.execute(
      name,
      args,
      deadline === null ? {} : { signal: deadline },
    )) as T;
  }

  /** As `execute`; null when the server has no such command. */
  async offered<T>(name: string, args: object = {}): Promise<T | null> {
    try {
      return await this.execute<T>(name, args);
    } catch (cause) {
      if (cause instanceof QmpError && cause.code === 'CommandNotFound') return null;
      throw cause;
    }
  }

  /** Events from now on. */
  events(): AsyncIterableIterator<QmpEvent> & AsyncDisposable {
    return this.#client.events();
  }
}

/** Connects to the server that the options name, and closes the connection after `work`. @throws CtlError in the words of users */
export async function withServer<T>(
  options: ServerOptions,
  work: (server: Server) => Promise<T>,
): Promise<T> {
  const path = socketOf(options);
  const seconds = secondsOf(options.timeout);
  const deadline = seconds === null ? null : AbortSignal.timeout(seconds * 1000);
  await using client = await connected(path, deadline);
  try {
    return await work(new Server(client, path, deadline));
  } catch (cause) {
    if (deadline?.aborted === true && cause === deadline.reason)
      throw new CtlError('CTL_TIMEOUT', `the server did not answer within ${seconds} s`);
    throw inOurWords(cause, path);
  }
}

/** @throws UsageError when no server was named */
function socketOf({ socket }: ServerOptions): string {
  const path = socket?.replace(/^unix:/, '') ?? '';
  if (path !== '') return path;
  throw new UsageError(
    "which server? Name its QMP socket with '--socket PATH', or in DOWNFOLD_QMP; 'downfoldd DISK --qmp unix:PATH' makes one",
  );
}

/** Seconds of `--timeout`; null: no end. @throws UsageError */
function secondsOf(text: string | undefined): number | null {
  if (text === undefined) return null;
  const seconds = Number(text);
  // beyond it timers fire at once
  const most = 2 ** 31 / 1000;
  if (/^\d+(\.\d+)?$/.test(text) && seconds > 0 && seconds < most) return seconds;
  throw new UsageError(`Invalid timeout '${text}': give seconds, such as 90 or 0.5`);
}

async function connected(path: string, deadline: AbortSignal | null): Promise<QmpClient> {
  const signal = deadline ?? AbortSignal.timeout(PATIENCE_SECONDS * 1000);
  try {
    return await connectQmp(path, { signal });
  } catch (cause) {
    if (signal.aborted && cause === signal.reason)
      throw new CtlError(
        deadline === null ? 'CTL_CONNECT' : 'CTL_TIMEOUT',
        `${path}: the server does not greet: QEMU serves one client at a time, and another one may be connected; or it is stopped`,
      );
    throw new CtlError('CTL_CONNECT', `${path}: ${await whyNot(path, cause)}`, {}, cause);
  }
}

/** Why there is no connection, and what to do about it. */
async function whyNot(path: string, cause: unknown): Promise<string> {
  if (!(cause instanceof QmpProtocolError)) throw cause;
  if (cause.code !== 'QMP_CLOSED')
    return `what listens there does not speak QMP (${cause.message}); name the socket of --qmp`;
  const { code } = (cause.cause ?? {}) as NodeJS.ErrnoException;
  switch (code) {
    case 'ENOENT':
      return "there is no such socket: is the server running? 'downfoldd DISK --qmp unix:PATH' makes it, --socket or DOWNFOLD_QMP names it";
    case 'ECONNREFUSED':
    case 'ENOTSOCK':
      return (await stat(path)).isSocket()
        ? 'nobody listens there any more: the server has ended; start it again'
        : 'is no socket: name that of --qmp';
    case 'EACCES':
    case 'EPERM':
      return `you may not connect to it: only the user may who runs the server${await ownerOf(path)}; be that user, with sudo for instance`;
    default:
      return cause.message;
  }
}

/** ` (user id 107)`, where that much may be known. */
async function ownerOf(path: string): Promise<string> {
  // whoever may not enter the directory cannot know
  const facts = await stat(path).catch(() => null);
  return facts === null ? '' : ` (user id ${facts.uid})`;
}

/** What went wrong while a server was talked to, in the words of users. */
function inOurWords(cause: unknown, path: string): unknown {
  if (cause instanceof QmpProtocolError && cause.code === 'QMP_CLOSED')
    return new CtlError('CTL_GONE', `${path}: the server is gone: ${cause.message}`, {}, cause);
  if (!(cause instanceof QmpError) || !cause.message.includes("'x-")) return cause;
  const ours = cause.message.replaceAll(/'x-(strategy|siblings|plan)'/g, "'--$1'");
  const message = ours.endsWith('is unexpected') ? `${ours}: only downfoldd knows it` : ours;
  return new QmpError(cause.code, message, cause);
}
