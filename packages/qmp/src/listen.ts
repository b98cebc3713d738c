import { lstat, mkdir, unlink } from 'node:fs/promises';
import net from 'node:net';
import { dirname, resolve } from 'node:path';
import type { Duplex } from 'node:stream';
import { QmpProtocolError } from './errors.ts';

/** Where and how to listen. */
export interface ListenOptions {
  /** The socket's path. Its directory is made, with mode 0700, when it is not there. */
  readonly path: string;
  /** True: others may look into the directory, as long as none but its owner may write there. Default false. */
  readonly sharedDirectory?: boolean;
  /** Called when a session is over, with what broke it. */
  readonly onSessionEnd?: (broken: Error | null) => void;
  /** Called when a client could not be accepted, for want of memory for instance. Those that are there, and the next ones, are served. */
  readonly onError?: (error: Error) => void;
}

/** A socket that takes clients until it is closed. Sessions go on; closing the server ends them. */
export interface QmpListener extends AsyncDisposable {
  /** Absolute. */
  readonly path: string;
}

/** Bytes that a socket's path may have; what is longer would be cut, and be another path. */
const MOST_PATH = 107;

/**
 * Listens on a Unix socket that only its owner may use (0600), in a directory of the same owner. A socket that a dead process
 * left behind is replaced.
 * @throws QmpProtocolError
 */
export async function listenQmp(
  server: { serve(stream: Duplex): Promise<Error | null> },
  options: ListenOptions,
): Promise<QmpListener> {
  const path = resolve(options.path);
  if (Buffer.byteLength(path) > MOST_PATH)
    throw new QmpProtocolError(
      'QMP_PATH_TOO_LONG',
      `${path}: longer than the ${MOST_PATH} bytes a socket's path may have`,
      { path },
    );
  await ensureDirectory(dirname(path), options.sharedDirectory ?? false);
  await removeStale(path);
  // what is asked before the other side ends its half is answered all the same
  const listener = net.createServer({ allowHalfOpen: true }, (socket) => {
    void server.serve(socket).then((broken) => options.onSessionEnd?.(broken));
  });
  await listening(listener, path);
  listener.on('error', (error) => options.onError?.(error));
  return {
    path,
    [Symbol.asyncDispose]: async () => {
      listener.close();
    },
  };
}

async function ensureDirectory(path: string, shared: boolean): Promise<void> {
  await mkdir(path, { recursive: true, mode: 0o700 }).catch((cause) => {
    throw refused(`${path}: cannot make the directory of a socket`, path, cause);
  });
  const stat = await lstat(path);
  const forbidden = shared ? 0o022 : 0o077;
  if (stat.isDirectory() && stat.uid === process.getuid?.() && (stat.mode & forbidden) === 0)
    return;
  const mode = (stat.mode & 0o7777).toString(8).padStart(4, '0');
  const what = stat.isDirectory() ? `of user ${stat.uid}, mode ${mode}` : 'no directory itself';
  throw new QmpProtocolError(
    'QMP_UNSAFE_DIRECTORY',
    `${path}: ${what}; a socket needs a directory of yours that others cannot ${shared ? 'write to' : 'enter'}: chmod ${shared ? 'go-w' : '700'} it, or choose another`,
    { path, mode, uid: stat.uid },
  );
}

/** Unlinks a socket on which nobody listens. */
async function removeStale(path: string): Promise<void> {
  const stat = await lstat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return null;
    throw refused(`${path}: cannot look at the socket`, path, error);
  });
  if (stat === null) return;
  if (!stat.isSocket() || stat.uid !== process.getuid?.())
    throw new QmpProtocolError(
      'QMP_NOT_A_SOCKET',
      `${path}: is there already, and no socket of yours: choose another path, or remove it`,
      { path, uid: stat.uid },
    );
  if (await answers(path))
    throw new QmpProtocolError(
      'QMP_SOCKET_IN_USE',
      `${path}: another process listens here: choose another path, or stop it`,
      { path },
    );
  await unlink(path);
}

/** Whether somebody listens. */
async function answers(path: string): Promise<boolean> {
  return await new Promise<boolean>((resolve, reject) => {
    const socket = net.connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'ECONNREFUSED') resolve(false);
      else reject(refused(`${path}: cannot tell whether somebody listens`, path, error));
    });
  });
}

async function listening(listener: net.Server, path: string): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  listener.once('listening', resolve);
  listener.once('error', (cause) => reject(refused(`${path}: cannot listen`, path, cause)));
  // `listen` makes the socket before it returns: others never see it with a wider mode
  const umask = process.umask(0o177);
  try {
    listener.listen(path);
  } finally {
    process.umask(umask);
  }
  await promise;
}

function refused(what: string, path: string, cause: unknown): QmpProtocolError {
  const why = cause instanceof Error ? cause.message : String(cause);
  return new QmpProtocolError('QMP_SOCKET', `${what}: ${why}`, { path }, cause);
}
