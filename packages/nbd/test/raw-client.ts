import { connect, type Socket } from 'node:net';
import { type ConnectionOptions, connect as connectTls } from 'node:tls';
import {
  ByteQueue,
  encodeClientFlags,
  encodeInfoQuery,
  encodeOption,
  encodeRequestHeader,
  GREETING_BYTES,
  OPTION,
  OPTION_REPLY,
  type OptionReply,
  OptionReplyDecoder,
  ReplyDecoder,
  type RequestHeader,
  type StatusExtent,
  type Style,
} from '../src/index.ts';

/** One thing a server said in its replies. */
export type Said =
  | { readonly said: 'simple'; readonly cookie: number; readonly error: number }
  | {
      readonly said: 'data';
      readonly cookie: number;
      readonly offset: number;
      readonly bytes: Buffer;
    }
  | {
      readonly said: 'hole';
      readonly cookie: number;
      readonly offset: number;
      readonly length: number;
    }
  | {
      readonly said: 'status';
      readonly cookie: number;
      readonly context: number;
      readonly extents: readonly StatusExtent[];
    }
  | {
      readonly said: 'error';
      readonly cookie: number;
      readonly error: number;
      readonly message: string;
    }
  | { readonly said: 'done'; readonly cookie: number };

/** A client that sends what it is told to, right or wrong, and notes what comes back. */
export class RawClient implements AsyncDisposable {
  socket: Socket;
  readonly queue: ByteQueue = new ByteQueue();
  readonly said: Said[] = [];
  /** Bytes that a simple reply of the next reads carries. */
  readonly expecting: Map<number, number> = new Map();
  #decoder: ReplyDecoder | null = null;
  readonly #options = new OptionReplyDecoder();
  readonly #waiting = new Set<() => void>();
  closed = false;

  constructor(path: string) {
    this.socket = connect(path);
    this.#hear(this.socket);
  }

  #hear(socket: Socket): void {
    socket.on('data', (chunk: Buffer) => {
      this.queue.push(chunk);
      this.#decoder?.run(this.queue);
      this.#wake();
    });
    // a hard disconnect shows as either
    socket.on('error', () => {});
    socket.on('close', () => {
      this.closed = true;
      this.#wake();
    });
  }

  /** Goes on over TLS. */
  async secure(options: ConnectionOptions): Promise<void> {
    const plain = this.socket;
    plain.removeAllListeners('data');
    const secure = connectTls({ ...options, socket: plain });
    this.#hear(secure);
    this.socket = secure;
    await new Promise<void>((resolve) => secure.once('secureConnect', resolve));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.socket.destroy();
    await this.gone();
  }

  send(...pieces: readonly Uint8Array[]): void {
    for (const piece of pieces) this.socket.write(piece);
  }

  /** Waits until `test` holds; throws when the server hangs up before, or after 5 s. */
  async until(test: () => boolean): Promise<void> {
    const end = Date.now() + 5000;
    while (!test()) {
      if (this.closed) throw new Error('the server hung up');
      if (Date.now() > end) throw new Error('the server says nothing');
      await new Promise<void>((resolve) => {
        const timer = setTimeout(() => wake(), 100);
        const wake = () => {
          clearTimeout(timer);
          this.#waiting.delete(wake);
          resolve();
        };
        this.#waiting.add(wake);
      });
    }
  }

  /** Waits until the server has hung up. */
  async gone(): Promise<void> {
    await this.until(() => this.closed);
  }

  async take(count: number): Promise<Buffer> {
    await this.until(() => this.queue.length >= count);
    return this.queue.take(count) as Buffer;
  }

  /** Greeting and flags. */
  async greet(flags = 3): Promise<void> {
    await this.take(GREETING_BYTES);
    this.send(encodeClientFlags(flags));
  }

  #wake(): void {
    for (const wake of [...this.#waiting]) wake();
  }

  /** Sends an option; all replies up to the final one. */
  async option(option: number, data?: Uint8Array): Promise<OptionReply[]> {
    this.send(encodeOption(option, data));
    return await this.replies();
  }

  async replies(): Promise<OptionReply[]> {
    const replies: OptionReply[] = [];
    for (;;) {
      let next: OptionReply | null = null;
      await this.until(() => {
        next ??= this.#options.next(this.queue);
        return next !== null;
      });
      const reply = next as unknown as OptionReply;
      replies.push(reply);
      if (reply.reply === OPTION_REPLY.ack || reply.reply >= 0x8000_0000) return replies;
    }
  }

  /** Type of the final reply to an option. */
  async final(option: number, data?: Uint8Array): Promise<number> {
    return (await this.option(option, data)).at(-1)?.reply ?? 0;
  }

  /** The whole handshake for an export. */
  async go(name: string, style: Style): Promise<void> {
    await this.greet();
    if (style === 'structured') await this.option(OPTION.structuredReply);
    if (style === 'extended') await this.option(OPTION.extendedHeaders);
    await this.enter(name, style);
  }

  /** GO, and on to the transmission phase. */
  async enter(name: string, style: Style): Promise<void> {
    const reply = await this.final(OPTION.go, encodeInfoQuery({ name, infos: [] }));
    if (reply !== OPTION_REPLY.ack) throw new Error(`GO: ${reply.toString(16)}`);
    this.listen(style);
  }

  listen(style: Style): void {
    const { said } = this;
    this.#decoder = new ReplyDecoder(style, {
      chunk: () => {},
      simple: (cookie, error) => {
        said.push({ said: 'simple', cookie, error });
        const length = error === 0 ? (this.expecting.get(cookie) ?? 0) : 0;
        if (length === 0) return null;
        const bytes = Buffer.alloc(length);
        said.push({ said: 'data', cookie, offset: -1, bytes });
        return bytes;
      },
      data: (cookie, offset, length) => {
        const bytes = Buffer.alloc(length);
        said.push({ said: 'data', cookie, offset, bytes });
        return bytes;
      },
      hole: (cookie, offset, length) => said.push({ said: 'hole', cookie, offset, length }),
      status: (cookie, context, extents) => said.push({ said: 'status', cookie, context, extents }),
      failure: (cookie, error, message) => said.push({ said: 'error', cookie, error, message }),
      done: (cookie) => said.push({ said: 'done', cookie }),
    });
    this.#decoder.run(this.queue);
  }

  /** Sends a request; what the server said to it. */
  async request(
    header: Partial<RequestHeader> & { command: number },
    { extended = false, payload }: { extended?: boolean; payload?: Uint8Array } = {},
  ): Promise<Said[]> {
    const cookie = header.cookie ?? 1;
    const full = { flags: 0, offset: 0, length: 0, ...header, cookie };
    const before = this.said.length;
    this.send(encodeRequestHeader(full, extended), ...(payload ? [payload] : []));
    await this.until(() =>
      this.said.slice(before).some((each) => each.said === 'done' && each.cookie === cookie),
    );
    return this.said.slice(before).filter((each) => each.cookie === cookie && each.said !== 'done');
  }
}
