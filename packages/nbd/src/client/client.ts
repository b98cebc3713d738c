import { ReplyDecoder } from '../codec/reply-decoder.ts';
import { encodeRequestHeader } from '../codec/request.ts';
import { NbdError } from '../errors.ts';
import { COMMAND, COMMAND_FLAG, EXPORT_FLAG } from '../protocol.ts';
import type { ExportInfo } from './haggle.ts';
import { Replies, type Sent, type Statuses } from './replies.ts';
import type { Wire } from './wire.ts';

/** How a change is to be done. */
export interface ClientChangeOptions {
  /** Resolve only once this change is on stable storage. Default `false`. */
  readonly fua?: boolean | undefined;
}

/** How zeros are to be written. */
export interface ClientZeroOptions extends ClientChangeOptions {
  /** The server may give space back. Default `true`. */
  readonly mayTrim?: boolean | undefined;
  /** Rejects with `ENOTSUP` when it would take as long as a write. Default `false`. */
  readonly fast?: boolean | undefined;
}

/**
 * An export of a server. Requests are sent as they are made, and answered in any order: who needs an order awaits.
 *
 * Offsets and lengths are whole numbers, in bytes. Each call rejects with `NBD_RANGE` when the range is outside of the export, not a
 * multiple of `info.blockSize.minimum`, or longer than the server takes; with `NBD_UNSUPPORTED` when `info.flags` lacks the
 * ability; with `NBD_ERRNO` when the server reports an error; and with `NBD_CLOSED`, `NBD_CONNECT`, `NBD_PROTOCOL` or `NBD_LIMIT` when the
 * connection is gone. It is never made anew.
 */
export interface NbdClient extends AsyncDisposable {
  readonly info: ExportInfo;
  /** Resolves once the connection is over, whoever ended it. Never rejects. */
  readonly gone: Promise<void>;
  /** Fills `target`, with up to `info.blockSize.maximumPayload` bytes. Its contents mean nothing when it rejects. */
  read(offset: number, target: Uint8Array): Promise<void>;
  /** `source` must not change until it resolves. */
  write(offset: number, source: Uint8Array, options?: ClientChangeOptions): Promise<void>;
  writeZeroes(offset: number, length: number, options?: ClientZeroOptions): Promise<void>;
  trim(offset: number, length: number, options?: ClientChangeOptions): Promise<void>;
  /** What was answered before the call is on stable storage when it resolves. */
  flush(): Promise<void>;
  cache(offset: number, length: number): Promise<void>;
  /**
   * Statuses of consecutive runs from `offset`, for each context of `info.contexts`. A server may stop before the range ends;
   * the last run may go on beyond it.
   */
  blockStatus(
    offset: number,
    length: number,
    options?: { readonly one?: boolean | undefined },
  ): Promise<Statuses>;
  /** Waits for what is in flight, and disconnects. @param options.signal cuts the connection instead of waiting */
  close(options?: { readonly signal?: AbortSignal | undefined }): Promise<void>;
}

/** The client of a connection whose handshake is over. */
export function openClient(wire: Wire, info: ExportInfo): NbdClient {
  return new OpenClient(wire, info);
}

class OpenClient implements NbdClient {
  readonly info: ExportInfo;
  readonly #wire: Wire;
  readonly #replies: Replies;
  readonly #decoder: ReplyDecoder;
  readonly #gone = Promise.withResolvers<void>();
  #lastCookie = 0;
  /** Why no more requests are taken. */
  #refusing: NbdError | null = null;

  constructor(wire: Wire, info: ExportInfo) {
    this.#wire = wire;
    this.info = info;
    this.#replies = new Replies(info.style !== 'simple', info.contexts, (error) =>
      this.#onSettled(error),
    );
    this.#decoder = new ReplyDecoder(info.style, this.#replies);
    wire.handOver({ onBytes: () => this.#onBytes(), onClose: (error) => this.#onClose(error) });
  }

  get gone(): Promise<void> {
    return this.#gone.promise;
  }

  async read(offset: number, target: Uint8Array): Promise<void> {
    this.#assertPayload(target.length);
    await this.#request({ command: COMMAND.read, offset, length: target.length, target }, 0);
  }

  async write(
    offset: number,
    source: Uint8Array,
    options: ClientChangeOptions = {},
  ): Promise<void> {
    this.#assertWritable();
    this.#assertPayload(source.length);
    const flags = this.#fua(options) | (this.#extended ? COMMAND_FLAG.payloadLength : 0);
    await this.#request({ command: COMMAND.write, offset, length: source.length }, flags, source);
  }

  async writeZeroes(
    offset: number,
    length: number,
    options: ClientZeroOptions = {},
  ): Promise<void> {
    this.#assertWritable();
    this.#assertCan('writeZeroes');
    let flags = this.#fua(options);
    if (options.mayTrim === false) flags |= COMMAND_FLAG.noHole;
    if (options.fast === true) {
      this.#assertCan('fastZero');
      flags |= COMMAND_FLAG.fastZero;
    }
    await this.#request({ command: COMMAND.writeZeroes, offset, length }, flags);
  }

  async trim(offset: number, length: number, options: ClientChangeOptions = {}): Promise<void> {
    this.#assertWritable();
    this.#assertCan('trim');
    await this.#request({ command: COMMAND.trim, offset, length }, this.#fua(options));
  }

  async flush(): Promise<void> {
    this.#assertCan('flush');
    await this.#request({ command: COMMAND.flush, offset: 0, length: 0 }, 0);
  }

  async cache(offset: number, length: number): Promise<void> {
    this.#assertCan('cache');
    await this.#request({ command: COMMAND.cache, offset, length }, 0);
  }

  async blockStatus(
    offset: number,
    length: number,
    { one = false }: { readonly one?: boolean | undefined } = {},
  ): Promise<Statuses> {
    if (this.info.contexts.size === 0)
      throw new NbdError('NBD_UNSUPPORTED', 'no metadata context was agreed on');
    if (length === 0) throw new NbdError('NBD_RANGE', 'the status of no bytes');
    const flags = one ? COMMAND_FLAG.reqOne : 0;
    return await this.#request({ command: COMMAND.blockStatus, offset, length, one }, flags);
  }

  async close({ signal }: { readonly signal?: AbortSignal | undefined } = {}): Promise<void> {
    const cut = () => this.#wire.link.destroy();
    if (signal?.aborted) cut();
    signal?.addEventListener('abort', cut);
    this.#beginClose(new NbdError('NBD_CLOSED', 'the connection is closed'));
    await this.#gone.promise;
    signal?.removeEventListener('abort', cut);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  get #extended(): boolean {
    return this.info.style === 'extended';
  }

  async #request(
    request: Pick<Sent, 'command' | 'offset' | 'length'> & Partial<Sent>,
    flags: number,
    payload?: Uint8Array,
  ): Promise<Statuses> {
    const sent = { target: null, one: false, ...request };
    if (this.#refusing !== null) throw this.#refusing;
    this.#assertRange(sent);
    this.#lastCookie += 1;
    const header = encodeRequestHeader(
      { ...sent, flags, cookie: this.#lastCookie },
      this.#extended,
    );
    const reply = this.#replies.expect(this.#lastCookie, sent);
    this.#wire.link.send(payload?.length ? [header, payload] : [header]);
    return await reply;
  }

  #assertRange({ offset, length }: Sent): void {
    const { size, blockSize, style } = this.info;
    const { minimum } = blockSize;
    const longest = style === 'extended' ? Number.MAX_SAFE_INTEGER : 2 ** 32 - 1;
    const whole = (value: number) =>
      Number.isSafeInteger(value) && value >= 0 && value % minimum === 0;
    if (whole(offset) && whole(length) && length <= longest && offset + length <= size) return;
    throw new NbdError(
      'NBD_RANGE',
      `${length} bytes at ${offset} are no range of an export of ${size} bytes in blocks of ${minimum}`,
      { offset, length, size, minimum },
    );
  }

  #assertPayload(length: number): void {
    const most = this.info.blockSize.maximumPayload;
    if (length <= most) return;
    throw new NbdError('NBD_RANGE', `${length} bytes at once, and the server takes ${most}`, {
      length,
      most,
    });
  }

  #assertCan(ability: keyof typeof EXPORT_FLAG): void {
    if ((this.info.flags & EXPORT_FLAG[ability]) !== 0) return;
    throw new NbdError('NBD_UNSUPPORTED', `the server does not offer '${ability}'`, { ability });
  }

  #assertWritable(): void {
    if (this.info.readOnly) throw new NbdError('NBD_UNSUPPORTED', 'the export is read-only');
  }

  #fua({ fua = false }: ClientChangeOptions): number {
    if (!fua) return 0;
    this.#assertCan('fua');
    return COMMAND_FLAG.fua;
  }

  #onBytes(): void {
    try {
      this.#decoder.run(this.#wire.link.queue);
    } catch (error) {
      this.#fail(error);
      this.#wire.link.destroy();
    }
  }

  #onClose(error: Error | null): void {
    const why = error === null ? 'the server hung up' : error.message;
    this.#fail(new NbdError('NBD_CONNECT', `the connection is lost: ${why}`, {}, error));
    this.#gone.resolve();
  }

  #fail(error: unknown): void {
    const typed =
      error instanceof NbdError
        ? error
        : new NbdError('NBD_PROTOCOL', 'a reply could not be taken', {}, error);
    this.#refusing ??= typed;
    this.#replies.fail(typed);
  }

  /** A server that goes down is left once it has answered the rest. */
  #onSettled(error: NbdError | null): void {
    if (error?.details['errno'] === 'ESHUTDOWN')
      this.#beginClose(new NbdError('NBD_CLOSED', 'the server is going down'));
    else this.#disconnectWhenIdle();
  }

  #beginClose(refusing: NbdError): void {
    this.#refusing ??= refusing;
    this.#disconnectWhenIdle();
  }

  #disconnectWhenIdle(): void {
    if (this.#refusing === null || this.#replies.inFlight > 0) return;
    const request = { command: COMMAND.disconnect, flags: 0, offset: 0, length: 0 };
    this.#wire.link.send([encodeRequestHeader({ ...request, cookie: 0 }, this.#extended)]);
    this.#wire.link.end();
  }
}
