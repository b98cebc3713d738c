import { QmpProtocolError } from './errors.ts';
import { Float, type Json } from './json.ts';
import type { Token } from './lexer.ts';
import { decodeLenient, decodeStrict, isCharacter } from './utf8.ts';

const LEAST_INT = -(2n ** 63n);
const MOST_UINT = 2n ** 64n - 1n;

const ESCAPES: Readonly<Record<string, string>> = {
  '"': '"',
  "'": "'",
  '\\': '\\',
  '/': '/',
  b: '\b',
  f: '\f',
  n: '\n',
  r: '\r',
  t: '\t',
};

/** `QMP_SYNTAX` with QEMU's words. */
export function syntaxError(what: string): QmpProtocolError {
  return new QmpProtocolError('QMP_SYNTAX', `JSON parse error, ${what}`);
}

/** The value that `tokens`, balanced or broken, stand for. @throws QmpProtocolError `QMP_SYNTAX` */
export function parseTokens(tokens: readonly Token[]): Json {
  return new Parser(tokens).value();
}

/** Recursive descent; the reader limits the depth. Words and order of errors are QEMU 7.2's. */
class Parser {
  readonly #tokens: readonly Token[];
  #at = 0;

  constructor(tokens: readonly Token[]) {
    this.#tokens = tokens;
  }

  value(): Json {
    const token = this.#take();
    switch (token.kind) {
      case '{':
        return this.#object();
      case '[':
        return this.#list();
      case 'string':
        return stringOf(token.text);
      case 'integer':
        return integerOf(token.text);
      case 'float':
        return new Float(Number(token.text));
      case 'keyword':
        return keywordOf(token.text);
      default:
        throw syntaxError('expecting value');
    }
  }

  #take(): Token {
    const token = this.#tokens[this.#at];
    // tokens are counted until as many brackets closed as opened, so that what is wrong is found before they run out
    if (token === undefined) throw syntaxError('expecting value');
    this.#at += 1;
    return token;
  }

  #object(): Json {
    const object: Record<string, Json> = Object.create(null);
    if (this.#skips('}')) return object;
    do {
      const name = this.value();
      if (typeof name !== 'string') throw syntaxError('key is not a string in object');
      if (this.#take().kind !== ':') throw syntaxError('missing : in object pair');
      const value = this.value();
      if (name in object) throw syntaxError('duplicate key');
      object[name] = value;
    } while (this.#separated('}', 'dict'));
    return object;
  }

  #list(): Json {
    const list: Json[] = [];
    if (this.#skips(']')) return list;
    do {
      list.push(this.value());
    } while (this.#separated(']', 'list'));
    return list;
  }

  /** Whether the container had ended; its end is taken. */
  #skips(end: '}' | ']'): boolean {
    const ended = this.#tokens[this.#at]?.kind === end;
    if (ended) this.#at += 1;
    return ended;
  }

  /** Whether another member follows; the separator or the end is taken. */
  #separated(end: '}' | ']', container: 'dict' | 'list'): boolean {
    const { kind } = this.#take();
    if (kind === ',') return true;
    if (kind === end) return false;
    throw syntaxError(`expected separator in ${container}`);
  }
}

function keywordOf(text: string): Json {
  if (text === 'true') return true;
  if (text === 'false') return false;
  if (text === 'null') return null;
  throw syntaxError(`invalid keyword '${text}'`);
}

function integerOf(text: string): Json {
  const value = Number(text);
  if (Number.isSafeInteger(value)) return value === 0 ? 0 : value;
  // a number of thousands of digits costs quadratic time as a bigint
  if (text.length > 20) return new Float(value);
  const exact = BigInt(text);
  return exact < LEAST_INT || exact > MOST_UINT ? new Float(value) : exact;
}

/** @param token with its quotes, of either kind */
function stringOf(token: string): string {
  const parts: string[] = [];
  const end = token.length - 1;
  for (let at = 1; at < end; ) {
    const backslash = token.indexOf('\\', at);
    const until = backslash < 0 ? end : backslash;
    const text = decodeStrict(token.slice(at, until));
    if (text === null) throw syntaxError('invalid UTF-8 sequence in string');
    parts.push(text);
    at = until;
    if (at === end) break;
    const escaped = escapeAt(token, at);
    parts.push(escaped.text);
    at += escaped.length;
  }
  return parts.join('');
}

function escapeAt(token: string, at: number): { readonly text: string; readonly length: number } {
  const letter = token[at + 1] ?? '';
  if (letter === 'u') return unicodeAt(token, at);
  const text = ESCAPES[letter];
  if (text === undefined) throw syntaxError('invalid escape sequence in string');
  return { text, length: 2 };
}

function unicodeAt(token: string, at: number): { readonly text: string; readonly length: number } {
  let codePoint = hexAt(token, at + 2);
  let length = 6;
  const leads = codePoint >= 0xd800 && codePoint <= 0xdbff;
  if (leads && token.startsWith('\\u', at + 6)) {
    const trail = hexAt(token, at + 8);
    if (trail >= 0xdc00 && trail <= 0xdfff) {
      codePoint = 0x1_0000 + (codePoint - 0xd800) * 0x400 + (trail - 0xdc00);
      length = 12;
    }
  }
  if (!isCharacter(codePoint)) {
    const shown = decodeLenient(token.slice(at, at + length));
    throw syntaxError(`${shown} is not a valid Unicode character`);
  }
  return { text: String.fromCodePoint(codePoint), length };
}

/** Four hexadecimal digits, or -1. */
function hexAt(token: string, at: number): number {
  const digits = token.slice(at, at + 4);
  return /^[0-9a-fA-F]{4}$/.test(digits) ? Number.parseInt(digits, 16) : -1;
}
