import { isBlockSize } from '../block-size.ts';
import {
  decodeGreeting,
  encodeClientFlags,
  encodeOption,
  GREETING_BYTES,
  OptionReplyDecoder,
} from '../codec/handshake.ts';
import {
  decodeExportFacts,
  decodeInfo,
  decodeMetaContext,
  decodeServerEntry,
  EXPORT_NAME_REPLY_BYTES,
  encodeContextQuery,
  encodeInfoQuery,
} from '../codec/option-data.ts';
import { decodeString, encodeString } from '../codec/strings.ts';
import { NbdError, protocolError } from '../errors.ts';
import {
  type BlockSize,
  DEFAULT_BLOCK_SIZE,
  EXPORT_FLAG,
  HANDSHAKE_FLAG,
  INFO,
  MAX_PAYLOAD,
  OPTION,
  OPTION_REPLY,
  type Style,
} from '../protocol.ts';
import type { Wire } from './wire.ts';

/** Most replies a server may give to one option. */
const MAX_REPLIES = 10_000;
const FIRST_ERROR = 0x8000_0000;
/** Why a server may not do an option that a client can do without. */
const UNAVAILABLE: readonly number[] = [
  OPTION_REPLY.unsupported,
  OPTION_REPLY.policy,
  OPTION_REPLY.platform,
  OPTION_REPLY.invalid,
];

/** What the server says of the export that was chosen. */
export interface ExportInfo {
  readonly name: string;
  /** For people; empty for none. */
  readonly description: string;
  /** Bytes. */
  readonly size: number;
  /** Bits of `EXPORT_FLAG`. */
  readonly flags: number;
  readonly readOnly: boolean;
  readonly blockSize: BlockSize;
  readonly style: Style;
  /** Metadata contexts that the server agreed to, name by id. */
  readonly contexts: ReadonlyMap<number, string>;
}

/** One line of a server's list. */
export interface ListedExport {
  readonly name: string;
  readonly description: string;
}

interface Part {
  readonly reply: number;
  readonly data: Buffer;
}

/** The client's side of option haggling. */
export class Haggle {
  readonly #wire: Wire;
  readonly #decoder = new OptionReplyDecoder();
  #fixed = false;
  #noZeroes = false;

  constructor(wire: Wire) {
    this.#wire = wire;
  }

  /** Greeting and flags. */
  async greet(): Promise<void> {
    const flags = decodeGreeting(await this.#wire.next((queue) => queue.take(GREETING_BYTES)));
    this.#fixed = (flags & HANDSHAKE_FLAG.fixedNewstyle) !== 0;
    this.#noZeroes = (flags & HANDSHAKE_FLAG.noZeroes) !== 0;
    const known = HANDSHAKE_FLAG.fixedNewstyle | HANDSHAKE_FLAG.noZeroes;
    this.#wire.link.send([encodeClientFlags(flags & known)]);
  }

  /** Asks for TLS. @throws NbdError `NBD_TLS` unless the server agrees, and has sent nothing in the clear behind it */
  async askForTls(): Promise<void> {
    const answer = this.#fixed ? await this.#ask(OPTION.startTls) : 'refused';
    if (answer === 'refused') throw new NbdError('NBD_TLS', 'the server has no TLS');
    if (this.#wire.link.queue.length > 0)
      throw new NbdError('NBD_TLS', 'the server sends plain bytes after it agreed to TLS');
  }

  /** The server's list of exports. */
  async list(): Promise<ListedExport[]> {
    if (!this.#fixed)
      throw new NbdError('NBD_UNSUPPORTED', 'the server is too old to list exports');
    const parts = await this.#ask(OPTION.list, undefined, []);
    if (parts === 'refused') throw protocolError('an option was refused');
    return parts
      .filter(({ reply }) => reply === OPTION_REPLY.server)
      .map(({ data }) => decodeServerEntry(data));
  }

  /** Ends haggling without choosing an export. */
  abort(): void {
    if (this.#fixed) this.#wire.link.send([encodeOption(OPTION.abort)]);
  }

  /** Agrees on the best style up to `best`, on contexts, and on the export. Then the transmission phase begins. */
  async choose(name: string, best: Style, contexts: readonly string[]): Promise<ExportInfo> {
    if (!this.#fixed) return await this.#exportName(name);
    const style = await this.#style(best);
    const chosen = style === 'simple' ? new Map() : await this.#contexts(name, contexts);
    const query = { name, infos: [INFO.blockSize, INFO.description] };
    // only a server that does not know the option is asked in the old way, which knows no errors
    const refusals = style === 'extended' ? [] : [OPTION_REPLY.unsupported];
    const parts = await this.#ask(OPTION.go, encodeInfoQuery(query), refusals);
    if (parts === 'refused') return { ...(await this.#exportName(name)), style, contexts: chosen };
    return infoOf(parts, { name, style, contexts: chosen });
  }

  async #style(best: Style): Promise<Style> {
    if (best === 'extended' && (await this.#ask(OPTION.extendedHeaders)) !== 'refused')
      return 'extended';
    if (best !== 'simple' && (await this.#ask(OPTION.structuredReply)) !== 'refused')
      return 'structured';
    return 'simple';
  }

  async #contexts(name: string, queries: readonly string[]): Promise<ReadonlyMap<number, string>> {
    if (queries.length === 0) return new Map();
    const answer = await this.#ask(OPTION.setMetaContext, encodeContextQuery({ name, queries }));
    const chosen = new Map<number, string>();
    for (const { reply, data } of answer === 'refused' ? [] : answer) {
      if (reply !== OPTION_REPLY.metaContext) continue;
      const context = decodeMetaContext(data);
      if (!queries.includes(context.name) || chosen.has(context.id))
        throw protocolError('the server chooses contexts that nobody asked for');
      chosen.set(context.id, context.name);
    }
    return chosen;
  }

  /** The old way to choose; a server refuses by hanging up. */
  async #exportName(name: string): Promise<ExportInfo> {
    const bytes = encodeString(name, 'the name of the export');
    this.#wire.link.send([encodeOption(OPTION.exportName, bytes)]);
    const size = EXPORT_NAME_REPLY_BYTES[this.#noZeroes ? 'short' : 'padded'];
    const { size: length, flags } = decodeExportFacts(
      await this.#wire.next((queue) => queue.take(size)),
    );
    return {
      name,
      description: '',
      size: length,
      flags,
      readOnly: (flags & EXPORT_FLAG.readOnly) !== 0,
      blockSize: DEFAULT_BLOCK_SIZE,
      style: 'simple',
      contexts: new Map(),
    };
  }

  /**
   * Sends an option. Resolves with the replies before the acknowledgement, or with `refused` when the server refuses for one of
   * `refusals`.
   * @throws NbdError `NBD_REFUSED` for any other reason, `NBD_TLS` when it wants TLS first
   */
  async #ask(
    option: number,
    data?: Buffer,
    refusals: readonly number[] = UNAVAILABLE,
  ): Promise<readonly Part[] | 'refused'> {
    this.#wire.link.send([encodeOption(option, data)]);
    const parts: Part[] = [];
    for (;;) {
      const part = await this.#wire.next((queue) => this.#decoder.next(queue));
      if (part.option !== option) throw protocolError('a reply is to another option');
      if (part.reply === OPTION_REPLY.ack) return parts;
      if (part.reply < FIRST_ERROR) {
        parts.push(part);
        if (parts.length > MAX_REPLIES)
          throw new NbdError('NBD_LIMIT', `more than ${MAX_REPLIES} replies to an option`);
        continue;
      }
      if (refusals.includes(part.reply)) return 'refused';
      throw refusedError(option, part);
    }
  }
}

function refusedError(option: number, { reply, data }: Part): NbdError {
  const names = Object.entries(OPTION_REPLY) as [string, number][];
  const name = names.find(([, value]) => value === reply)?.[0] ?? String(reply);
  const reason = decodeString(data, 'the reason of a refusal');
  const text = reason === '' ? '' : `: ${reason}`;
  const code = reply === OPTION_REPLY.tlsRequired ? 'NBD_TLS' : 'NBD_REFUSED';
  return new NbdError(code, `the server refuses (${name})${text}`, { option, reply: name, reason });
}

function infoOf(
  parts: readonly Part[],
  chosen: Pick<ExportInfo, 'name' | 'style' | 'contexts'>,
): ExportInfo {
  let facts: { size: number; flags: number } | null = null;
  let blockSize = DEFAULT_BLOCK_SIZE;
  let description = '';
  for (const { reply, data } of parts) {
    if (reply !== OPTION_REPLY.info) continue;
    const info = decodeInfo(data);
    if (info.info === 'export') facts = { size: info.size, flags: info.flags };
    else if (info.info === 'blockSize') blockSize = usable(info);
    else if (info.info === 'description') description = info.text;
  }
  if (facts === null) throw protocolError('the server does not say how large the export is');
  const readOnly = (facts.flags & EXPORT_FLAG.readOnly) !== 0;
  return { ...chosen, ...facts, description, readOnly, blockSize };
}

/** Block sizes as they were told, with no more payload than this client takes. */
function usable({ minimum, preferred, maximumPayload }: BlockSize): BlockSize {
  const size = { minimum, preferred, maximumPayload };
  if (!isBlockSize(size)) throw protocolError('the server tells block sizes that cannot be');
  return { ...size, maximumPayload: Math.min(maximumPayload, MAX_PAYLOAD) };
}
