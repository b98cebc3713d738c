import type { Socket } from 'node:net';
import { ByteQueue } from './codec/byte-queue.ts';

/** Unsent bytes above which whoever answers should stop until `onDrain`. */
const MAX_UNSENT = 1 << 20;

/** What the transmission phase needs of a connection, whoever has its socket. */
export interface Wire {
  readonly queue: ByteQueue;
  /** Sends pieces, in order; they are the wire's from now on. @param sent called once they left for the kernel, or never will */
  send(pieces: readonly Uint8Array[], sent?: () => void): void;
  /** No more bytes until `resume`: the kernel makes the peer wait. */
  pause(): void;
  resume(): void;
  /** Closes after all that was sent has left. */
  end(): void;
}

/** What is used of a socket's handle, which Node does not document: it has been like this since version 8. */
interface Handle {
  readonly fd?: unknown;
  reading?: boolean;
  readStop?: unknown;
}

/** What a link tells its owner. Nothing is told after `onClose`. */
export interface LinkOwner {
  /** `queue` has grown. */
  onBytes(): void;
  /** What was unsent has gone out. */
  onDrain(): void;
  /** The peer sends no more; what it sent before is in `queue`. */
  onEnd(): void;
  /** The socket is closed. @param error of the socket, `null` when there was none */
  onClose(error: Error | null): void;
}

/**
 * A socket, plain and later perhaps with TLS: what comes in goes to `queue`, what goes out in one turn of the event loop goes
 * out in one system call.
 */
export class Link implements Wire {
  readonly queue: ByteQueue = new ByteQueue();
  readonly #owner: LinkOwner;
  #socket: Socket;
  #error: Error | null = null;
  #corked = false;
  readonly #heard = {
    data: (chunk: Buffer): void => {
      this.queue.push(chunk);
      this.#owner.onBytes();
    },
    drain: (): void => this.#owner.onDrain(),
    end: (): void => this.#owner.onEnd(),
    error: (error: Error): void => {
      this.#error ??= error;
    },
    close: (): void => this.#owner.onClose(this.#error),
  };

  constructor(socket: Socket, owner: LinkOwner) {
    this.#owner = owner;
    this.#socket = socket;
    socket.setNoDelay(true);
    socket.setKeepAlive(true);
    this.#listen(socket);
  }

  get socket(): Socket {
    return this.#socket;
  }

  get congested(): boolean {
    return this.#socket.writableLength > MAX_UNSENT;
  }

  /** Sends pieces, in order, without copying them. @param sent called once they left for the kernel, or never will */
  send(pieces: readonly Uint8Array[], sent?: () => void): void {
    const socket = this.#socket;
    if (!socket.writable) {
      if (sent !== undefined) process.nextTick(sent);
      return;
    }
    if (!this.#corked) {
      this.#corked = true;
      socket.cork();
      process.nextTick(() => {
        this.#corked = false;
        socket.uncork();
      });
    }
    pieces.forEach((piece, index) => {
      if (index === pieces.length - 1 && sent !== undefined) socket.write(piece, sent);
      else socket.write(piece);
    });
  }

  /** No more bytes until `resume`: the kernel makes the peer wait. */
  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  /** Lets go of the plain socket, so that TLS can take it. Its errors and its end are still heard. */
  release(): Socket {
    const socket = this.#socket;
    socket.pause();
    // TLS ends both sides at once, also within its handshake
    socket.allowHalfOpen = false;
    for (const event of ['data', 'drain', 'end'] as const) socket.off(event, this.#heard[event]);
    return socket;
  }

  /**
   * Reads no more, so that somebody else can have the socket, whose descriptor it returns; what came in already is in `queue`. The descriptor stays
   * open until `end` or `destroy`, and its end is the other's to see. Nothing may be sent meanwhile, and `resume` is not to be called. Null: this
   * socket cannot be given away.
   */
  detach(): number | null {
    const socket = this.#socket;
    const { _handle: handle } = socket as unknown as { readonly _handle?: Handle };
    const { fd, readStop } = handle ?? {};
    if (typeof fd !== 'number' || fd < 0 || typeof readStop !== 'function') return null;
    if (socket.destroyed || socket.writableLength > 0) return null;
    socket.pause();
    // reading may come upon the end: neither does that close the socket now, nor is what somebody else has still to read its last
    socket.allowHalfOpen = true;
    for (const event of ['data', 'end'] as const) socket.off(event, this.#heard[event]);
    if (socket.readableLength > 0) this.queue.push(socket.read());
    // reading what was there may have begun to read again
    readStop.call(handle);
    if (handle !== undefined) handle.reading = false;
    return fd;
  }

  /** Goes on over a TLS socket. */
  upgrade(socket: Socket): void {
    this.#socket.off('close', this.#heard.close);
    this.#socket = socket;
    this.#listen(socket);
  }

  /** Closes after all that was sent has left. */
  end(): void {
    this.#socket.destroySoon();
  }

  destroy(): void {
    this.#socket.destroy();
  }

  #listen(socket: Socket): void {
    for (const [event, listener] of Object.entries(this.#heard)) socket.on(event, listener);
  }
}
