import { encodeOptionReply, type OptionRequest } from '../codec/handshake.ts';
import {
  type ContextQuery,
  decodeContextQuery,
  decodeInfoQuery,
  encodeExportNameReply,
  encodeInfoBlockSize,
  encodeInfoExport,
  encodeInfoText,
  encodeMetaContext,
  encodeServerEntry,
} from '../codec/option-data.ts';
import { decodeString, encodeMessage } from '../codec/strings.ts';
import { NbdError } from '../errors.ts';
import { EXPORT_FLAG, INFO, OPTION, OPTION_REPLY, type Style } from '../protocol.ts';
import type { Export } from './export.ts';

/** What the transmission phase needs to know of the handshake. */
export interface Session {
  readonly name: string;
  readonly export: Export;
  readonly style: Style;
  /** Metadata contexts that the client chose, by their ids. */
  readonly contexts: ReadonlyMap<number, string>;
}

/** What is sent in answer to an option, and what follows. */
export interface Answer {
  readonly replies: readonly Buffer[];
  readonly next: 'more' | 'end' | 'drop' | 'tls' | Session;
}

/** What haggling asks of the server it belongs to. */
export interface HagglingHost {
  readonly exports: ReadonlyMap<string, Export>;
  readonly tlsRequired: boolean;
  readonly closing: boolean;
}

interface ChosenContexts {
  readonly name: string;
  readonly ids: ReadonlyMap<number, string>;
}

/** Bits of `EXPORT_FLAG` that a client of that style is told. */
function exportFlags(of: Export, style: Style, contextsChosen: boolean): number {
  let flags = EXPORT_FLAG.hasFlags | EXPORT_FLAG.flush | EXPORT_FLAG.fua;
  if (of.readOnly) flags |= EXPORT_FLAG.readOnly;
  else {
    flags |= EXPORT_FLAG.writeZeroes;
    if (of.supports.trim) flags |= EXPORT_FLAG.trim;
    if (of.supports.fastZero) flags |= EXPORT_FLAG.fastZero;
  }
  if (style !== 'simple') flags |= EXPORT_FLAG.df;
  if (of.supports.multiConn) flags |= EXPORT_FLAG.multiConn;
  if (of.supports.cache) flags |= EXPORT_FLAG.cache;
  if (style === 'extended' && contextsChosen) flags |= EXPORT_FLAG.blockStatusPayload;
  return flags;
}

/** The server's side of option haggling, without a socket: an option goes in, an answer comes out. */
export class Haggling {
  readonly #host: HagglingHost;
  readonly #noZeroes: boolean;
  readonly #fixed: boolean;
  #secure = false;
  #style: Style = 'simple';
  #contexts: ChosenContexts | null = null;

  /** @param client what the client's flags said */
  constructor(host: HagglingHost, client: { readonly fixed: boolean; readonly noZeroes: boolean }) {
    this.#host = host;
    this.#fixed = client.fixed;
    this.#noZeroes = client.noZeroes;
  }

  /** TLS is up. Nothing was agreed on before it: every option that could do so was refused. */
  secured(): void {
    this.#secure = true;
  }

  answer({ option, data }: OptionRequest): Answer {
    const insecure = this.#host.tlsRequired && !this.#secure;
    if (option === OPTION.exportName) return insecure ? DROP : this.#exportName(data);
    // without the fixed protocol there are no replies, and so no other options
    if (!this.#fixed) return DROP;
    const reply = (type: number, text = '') => refuse(option, type, text);
    if (option === OPTION.abort)
      return { replies: [encodeOptionReply(option, OPTION_REPLY.ack)], next: 'end' };
    if (this.#host.closing)
      return { ...reply(OPTION_REPLY.shutdown, 'the server is going down'), next: 'end' };
    if (insecure && option !== OPTION.startTls)
      return reply(OPTION_REPLY.tlsRequired, 'this server wants TLS first');
    if (data === null) return reply(OPTION_REPLY.tooBig, 'the option has too much data');
    try {
      return this.#answer(option, data);
    } catch (error) {
      if (error instanceof NbdError) return reply(OPTION_REPLY.invalid, error.message);
      throw error;
    }
  }

  #answer(option: number, data: Buffer): Answer {
    switch (option) {
      case OPTION.startTls:
        return this.#bare(option, data, () => this.#startTls());
      case OPTION.list:
        return this.#bare(option, data, () => this.#list());
      case OPTION.structuredReply:
        return this.#bare(option, data, () => this.#structuredReply());
      case OPTION.extendedHeaders:
        return this.#bare(option, data, () => {
          this.#style = 'extended';
          return accept(option);
        });
      case OPTION.info:
      case OPTION.go:
        return this.#info(option, data);
      case OPTION.listMetaContext:
      case OPTION.setMetaContext:
        return this.#metaContext(option, data);
      default:
        return refuse(option, OPTION_REPLY.unsupported, 'this server does not know the option');
    }
  }

  /** For options that come without data. */
  #bare(option: number, data: Buffer, answer: () => Answer): Answer {
    if (data.length === 0) return answer();
    return refuse(option, OPTION_REPLY.invalid, 'this option has no data');
  }

  #startTls(): Answer {
    const option = OPTION.startTls;
    if (this.#secure) return refuse(option, OPTION_REPLY.invalid, 'TLS is up already');
    if (!this.#host.tlsRequired)
      return refuse(option, OPTION_REPLY.policy, 'this server has no TLS');
    return { ...accept(option), next: 'tls' };
  }

  #list(): Answer {
    const entries = [...this.#host.exports].map(([name, of]) =>
      encodeOptionReply(OPTION.list, OPTION_REPLY.server, encodeServerEntry(name, of.description)),
    );
    return accept(OPTION.list, entries);
  }

  #structuredReply(): Answer {
    const option = OPTION.structuredReply;
    if (this.#style === 'extended')
      return refuse(option, OPTION_REPLY.extendedHeadersRequired, 'extended headers are agreed on');
    this.#style = 'structured';
    return accept(option);
  }

  #exportName(data: Buffer | null): Answer {
    // there is no way to refuse but to hang up
    if (data === null || this.#host.closing || this.#style === 'extended') return DROP;
    const session = this.#session(decodeString(data, 'the name of the export'));
    if (session === null) return DROP;
    return {
      replies: [encodeExportNameReply(this.#facts(session), !this.#noZeroes)],
      next: session,
    };
  }

  #info(option: number, data: Buffer): Answer {
    const { name, infos } = decodeInfoQuery(data);
    const session = this.#session(name);
    if (session === null) return refuse(option, OPTION_REPLY.unknown, 'there is no such export');
    const { blockSize, description } = session.export;
    const items = [encodeInfoExport(this.#facts(session))];
    if (infos.includes(INFO.name)) items.push(encodeInfoText(INFO.name, name));
    if (infos.includes(INFO.description) && description !== '')
      items.push(encodeInfoText(INFO.description, description));
    if (infos.includes(INFO.blockSize) || blockSize.minimum > 1)
      items.push(encodeInfoBlockSize(blockSize));
    const replies = items.map((item) => encodeOptionReply(option, OPTION_REPLY.info, item));
    return { ...accept(option, replies), next: option === OPTION.go ? session : 'more' };
  }

  #metaContext(option: number, data: Buffer): Answer {
    const setting = option === OPTION.setMetaContext;
    if (setting) this.#contexts = null;
    if (this.#style === 'simple')
      return refuse(option, OPTION_REPLY.invalid, 'structured replies come first');
    const query = decodeContextQuery(data);
    const of = this.#host.exports.get(query.name);
    if (of === undefined) return refuse(option, OPTION_REPLY.unknown, 'there is no such export');
    const names = matching(of.contexts, query, setting);
    const ids = new Map(names.map((name, index) => [index + 1, name]));
    if (setting) this.#contexts = { name: query.name, ids };
    const replies = [...ids].map(([id, name]) =>
      encodeOptionReply(
        option,
        OPTION_REPLY.metaContext,
        encodeMetaContext(setting ? id : 0, name),
      ),
    );
    return accept(option, replies);
  }

  #session(name: string): Session | null {
    const of = this.#host.exports.get(name);
    if (of === undefined) return null;
    const contexts = this.#contexts?.name === name ? this.#contexts.ids : new Map();
    return { name, export: of, style: this.#style, contexts };
  }

  #facts({ export: of, style, contexts }: Session): { size: number; flags: number } {
    return { size: of.size, flags: exportFlags(of, style, contexts.size > 0) };
  }
}

const DROP: Answer = { replies: [], next: 'drop' };

function accept(option: number, before: readonly Buffer[] = []): Answer {
  return { replies: [...before, encodeOptionReply(option, OPTION_REPLY.ack)], next: 'more' };
}

function refuse(option: number, reply: number, text: string): Answer {
  return { replies: [encodeOptionReply(option, reply, encodeMessage(text))], next: 'more' };
}

/** Contexts that were asked for, each once. `base:` stands for all of `base` in a list, and for none in a choice. */
function matching(
  contexts: readonly string[],
  { queries }: ContextQuery,
  setting: boolean,
): readonly string[] {
  if (queries.length === 0) return setting ? [] : contexts;
  return contexts.filter((context) =>
    queries.some(
      (query) =>
        query === context || (!setting && query.endsWith(':') && context.startsWith(query)),
    ),
  );
}
