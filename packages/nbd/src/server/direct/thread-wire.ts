import { MessageChannel, type MessagePort } from 'node:worker_threads';
import { ByteQueue } from '../../codec/byte-queue.ts';
import { NbdError } from '../../errors.ts';
import type { Wire } from '../../link.ts';
import { Control, FLAG, type Tally } from './control.ts';
import type { Assignment, FromThread, ToThread } from './messages.ts';
import type { Thread } from './threads.ts';

/** What a thread's wire tells its owner. */
export interface ThreadOwner {
  /** `queue` has grown. */
  onBytes(): void;
  /** The client sends no more. */
  onEnd(): void;
  /** The thread does not touch the socket any more; the last that is told. @param error why, when nobody asked for it */
  onOver(error: Error | null): void;
}

/** A connection whose socket a thread has: what it does not serve comes in here, and the answers go out through it. */
export class ThreadWire implements Wire {
  readonly queue: ByteQueue = new ByteQueue();
  readonly #thread: Thread;
  readonly #owner: ThreadOwner;
  readonly #control = new Control();
  readonly #port: MessagePort;
  /** Bytes that came in, modulo 2^32. */
  #received = 0;
  #replies: Uint8Array[][] = [];
  /** Of replies that have not left, in order. */
  readonly #unsent: (() => void)[] = [];
  #isEnding = false;
  #isOver = false;

  constructor(
    thread: Thread,
    assignment: Omit<Assignment, 'control' | 'port'>,
    owner: ThreadOwner,
  ) {
    const { port1, port2 } = new MessageChannel();
    this.#thread = thread;
    this.#owner = owner;
    this.#port = port1;
    port1.on('message', (message: FromThread) => this.#hear(message));
    thread.serve({ ...assignment, control: this.#control.buffer, port: port2 }, () =>
      this.#over('the thread of a connection died'),
    );
  }

  send(pieces: readonly Uint8Array[], sent?: () => void): void {
    if (this.#isOver) {
      if (sent !== undefined) process.nextTick(sent);
      return;
    }
    if (this.#replies.length === 0) process.nextTick(() => this.#post());
    this.#replies.push(pieces.map(whole));
    this.#unsent.push(sent ?? (() => {}));
  }

  pause(): void {
    this.#took();
  }

  resume(): void {
    this.#took();
  }

  end(): void {
    if (this.#isEnding) return;
    this.#isEnding = true;
    this.#post();
    this.#tell({ end: true });
  }

  /** Nothing more is served without being asked for. */
  passAll(): void {
    this.#control.raise(FLAG.passAll);
  }

  /** Ends at once; `onOver` follows. */
  destroy(): void {
    this.#control.raise(FLAG.kill);
    if (!this.#isOver) this.#thread.ring();
  }

  /** Tells what the thread served since it was asked last. */
  settle(tell: Tally): void {
    this.#control.settle(tell);
  }

  #hear(message: FromThread): void {
    if ('passed' in message) {
      for (const { buffer } of message.passed) {
        this.queue.push(Buffer.from(buffer));
        this.#received = (this.#received + buffer.byteLength) | 0;
      }
      this.#owner.onBytes();
    } else if ('sent' in message) for (const sent of this.#unsent.splice(0, message.sent)) sent();
    else if ('ended' in message) this.#owner.onEnd();
    else this.#over(message.error);
  }

  /** What is in the queue no more has been taken. */
  #took(): void {
    if (this.#control.took(this.#received - this.queue.length) && !this.#isOver)
      this.#thread.ring();
  }

  #post(): void {
    if (this.#replies.length === 0) return;
    const replies = this.#replies;
    this.#replies = [];
    this.#tell({ replies }, replies.flat());
  }

  #tell(message: ToThread, pieces: readonly Uint8Array[] = []): void {
    if (this.#isOver) return;
    this.#port.postMessage(
      message,
      pieces.map(({ buffer }) => buffer as ArrayBuffer),
    );
    this.#thread.ring();
  }

  #over(error: string | null): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#thread.free();
    this.#port.close();
    for (const sent of this.#unsent.splice(0)) sent();
    this.#owner.onOver(error === null ? null : new NbdError('NBD_CONNECT', error));
  }
}

/** With a buffer of its own, which can be given away. Small pieces share one. */
function whole(piece: Uint8Array): Uint8Array {
  return piece.byteLength === piece.buffer.byteLength ? piece : new Uint8Array(piece);
}
