import type { Socket } from 'node:net';
import type { ByteQueue } from '../codec/byte-queue.ts';
import { NbdError } from '../errors.ts';
import { Link } from '../link.ts';

/** Who takes what comes in once the handshake is over. */
export interface WireUser {
  onBytes(): void;
  onClose(error: Error | null): void;
}

/** The client's end of a connection: first read by awaiting, then by a `WireUser`. */
export class Wire {
  readonly link: Link;
  #user: WireUser | null = null;
  #wake: (() => void) | null = null;
  /** Why nothing comes any more. */
  #over: Error | null = null;

  constructor(socket: Socket) {
    this.link = new Link(socket, {
      onBytes: () => (this.#user ? this.#user.onBytes() : this.#wake?.()),
      onDrain: () => {},
      // a server that ends its side will answer nothing any more
      onEnd: () => this.link.destroy(),
      onClose: (error) => this.#onClose(error),
    });
  }

  /** What `attempt` makes of the bytes, once there are enough. @throws NbdError `NBD_CONNECT` when the connection closes before */
  async next<T>(attempt: (queue: ByteQueue) => T | null): Promise<T> {
    for (;;) {
      const value = attempt(this.link.queue);
      if (value !== null) return value;
      if (this.#over !== null) throw this.#over;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  /** Hands what comes in to `user`, what is here already included. */
  handOver(user: WireUser): void {
    this.#user = user;
    if (this.link.queue.length > 0) user.onBytes();
    if (this.#over !== null) user.onClose(this.#over);
  }

  #onClose(error: Error | null): void {
    const why = error === null ? 'the server hung up' : error.message;
    this.#over = new NbdError('NBD_CONNECT', `the connection is lost: ${why}`, {}, error);
    if (this.#user) this.#user.onClose(error);
    else this.#wake?.();
  }
}
