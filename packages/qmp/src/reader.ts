import { QmpProtocolError } from './errors.ts';
import type { Json } from './json.ts';
import { Lexer, type Token } from './lexer.ts';
import { parseTokens, syntaxError } from './parser.ts';
import { decodeLenient } from './utf8.ts';

/** What a reader takes. What is longer or deeper is an error, and the rest of its line is dropped. */
export interface ReaderLimits {
  /** Bytes of one JSON text, blanks between tokens left out. Default 64 KiB. */
  readonly text?: number;
  /** Bytes of one string. Default 16 KiB. */
  readonly string?: number;
  /** Levels of objects and lists. Default 32, at most 1,024. */
  readonly depth?: number;
}

/** A JSON text, or what stood in the place of one. */
export type Reading =
  | { readonly value: Json; readonly error?: never }
  | { readonly error: QmpProtocolError; readonly value?: never };

const KIB = 1024;
const MOST_DEPTH = 1024;

/**
 * Splits bytes into JSON texts wherever QEMU does: they need no separator but where two scalars would run together, and may
 * be cut anywhere. Holds one text at most, up to the limits.
 */
export class JsonReader {
  readonly #lexer = new Lexer();
  readonly #most: Required<ReaderLimits>;
  #tokens: Token[] = [];
  #bytes = 0;
  #braces = 0;
  #brackets = 0;

  constructor({ text = 64 * KIB, string = 16 * KIB, depth = 32 }: ReaderLimits = {}) {
    if (!(depth >= 1 && depth <= MOST_DEPTH))
      throw new RangeError(`depth is ${depth}, not 1 to ${MOST_DEPTH}`);
    this.#most = { text, string, depth };
  }

  /** What ends in `chunk`. To be read to its end before the next chunk is fed. */
  *feed(chunk: Uint8Array): Generator<Reading, void, void> {
    const bytes = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    for (const token of this.#lexer.feed(bytes)) {
      const reading = this.#take(token);
      if (reading !== null) yield reading;
    }
    const { carried } = this.#lexer;
    const error = this.#overLimit(carried, carried);
    if (error !== null) yield this.#dropLine(error);
  }

  #take(token: Token): Reading | null {
    const { kind, text } = token;
    const error = this.#overLimit(text.length, kind === 'string' ? text.length - 2 : 0);
    if (error !== null) return this.#dropLine(error);
    if (kind === 'error') {
      this.#forget();
      return { error: syntaxError(`stray '${decodeLenient(untilNul(text))}'`) };
    }
    this.#count(kind);
    if (this.#braces + this.#brackets > this.#most.depth)
      return this.#dropLine(
        new QmpProtocolError('QMP_TOO_DEEP', 'JSON nesting depth limit exceeded', {
          limit: this.#most.depth,
        }),
      );
    this.#tokens.push(token);
    this.#bytes += text.length;
    return this.#isOpen() ? null : this.#parse();
  }

  #overLimit(token: number, string: number): QmpProtocolError | null {
    if (this.#bytes + token > this.#most.text)
      return new QmpProtocolError('QMP_TOO_LONG', 'JSON token size limit exceeded', {
        limit: this.#most.text,
      });
    if (string > this.#most.string)
      return new QmpProtocolError('QMP_STRING_TOO_LONG', 'JSON string size limit exceeded', {
        limit: this.#most.string,
      });
    return null;
  }

  #count(kind: Token['kind']): void {
    if (kind === '{') this.#braces += 1;
    else if (kind === '}') this.#braces -= 1;
    else if (kind === '[') this.#brackets += 1;
    else if (kind === ']') this.#brackets -= 1;
  }

  /** As QEMU counts: a closing bracket too many ends a text, one of the wrong kind does not. */
  #isOpen(): boolean {
    return (this.#braces > 0 || this.#brackets > 0) && this.#braces >= 0 && this.#brackets >= 0;
  }

  #parse(): Reading {
    const tokens = this.#tokens;
    this.#forget();
    try {
      return { value: parseTokens(tokens) };
    } catch (error) {
      if (error instanceof QmpProtocolError) return { error };
      throw error;
    }
  }

  #dropLine(error: QmpProtocolError): Reading {
    this.#lexer.skipLine();
    this.#forget();
    return { error };
  }

  #forget(): void {
    this.#tokens = [];
    this.#bytes = 0;
    this.#braces = 0;
    this.#brackets = 0;
  }
}

function untilNul(text: string): string {
  const end = text.indexOf('\0');
  return end < 0 ? text : text.slice(0, end);
}
