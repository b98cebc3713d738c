/** What a token is; `error`: bytes that begin none. Punctuation is its own kind. */
type TokenKind =
  | '{'
  | '}'
  | '['
  | ']'
  | ':'
  | ','
  | 'string'
  | 'integer'
  | 'float'
  | 'keyword'
  | 'error';

/** A token; `text` has one UTF-16 unit a byte. */
export interface Token {
  readonly kind: TokenKind;
  readonly text: string;
}

/** Where in a token the lexer is. */
type State =
  | 'start'
  | 'recovery'
  | 'skipped line'
  | 'string'
  | 'escape'
  | 'minus'
  | 'zero'
  | 'digits'
  | 'point'
  | 'fraction'
  | 'e'
  | 'sign'
  | 'exponent'
  | 'keyword';

/** What one byte does: go on in a state, end the token with or before this byte, or make it an error. */
type Move = State | { readonly ends: TokenKind; readonly before: boolean };

const TAB = 0x09;
const LINE_FEED = 0x0a;
const QUOTE = 0x22;
const APOSTROPHE = 0x27;
const BACKSLASH = 0x5c;
const PUNCTUATION = '{}[]:,';

function ends(kind: TokenKind, before: boolean): Move {
  return { ends: kind, before };
}

const ERROR: Move = ends('error', false);
const STRING: Move = ends('string', false);
const INTEGER: Move = ends('integer', true);
const FLOAT: Move = ends('float', true);
const KEYWORD: Move = ends('keyword', true);
const MARKS: ReadonlyMap<number, Move> = new Map(
  [...PUNCTUATION].map((mark) => [mark.charCodeAt(0), ends(mark as TokenKind, false)]),
);

function isDigit(byte: number): boolean {
  return byte >= 0x30 && byte <= 0x39;
}

function isSpace(byte: number): boolean {
  return byte === 0x20 || byte === LINE_FEED || byte === 0x0d || byte === TAB;
}

function isLowerCase(byte: number): boolean {
  return byte >= 0x61 && byte <= 0x7a;
}

function isE(byte: number): boolean {
  return byte === 0x65 || byte === 0x45;
}

/** Controls, and what is never part of UTF-8. */
function isNeverText(byte: number): boolean {
  return byte < 0x20 || byte >= 0xfe;
}

function fromStart(byte: number): Move {
  const mark = MARKS.get(byte);
  if (mark !== undefined) return mark;
  if (isSpace(byte)) return 'start';
  if (byte === QUOTE || byte === APOSTROPHE) return 'string';
  if (byte === 0x2d) return 'minus';
  if (byte === 0x30) return 'zero';
  if (isDigit(byte)) return 'digits';
  return isLowerCase(byte) ? 'keyword' : ERROR;
}

function inNumber(state: State, byte: number): Move {
  const digit = isDigit(byte);
  switch (state) {
    case 'minus':
      return byte === 0x30 ? 'zero' : digit ? 'digits' : ERROR;
    case 'zero': // QEMU reads 0e1 as 0, then a keyword
      return digit ? ERROR : byte === 0x2e ? 'point' : INTEGER;
    case 'digits':
      return digit ? 'digits' : byte === 0x2e ? 'point' : isE(byte) ? 'e' : INTEGER;
    case 'point':
      return digit ? 'fraction' : ERROR;
    case 'fraction':
      return digit ? 'fraction' : isE(byte) ? 'e' : FLOAT;
    case 'e':
      return digit ? 'exponent' : byte === 0x2b || byte === 0x2d ? 'sign' : ERROR;
    case 'sign':
      return digit ? 'exponent' : ERROR;
    default:
      return digit ? 'exponent' : FLOAT;
  }
}

/**
 * Bytes to tokens, with QEMU's boundaries: a broken token is an error, after which everything up to a control other than a tab,
 * or a structural character, is dropped. Source: behaviour of qemu-storage-daemon 7.2.
 */
export class Lexer {
  #state: State = 'start';
  #quote = 0;
  /** What earlier chunks had of the token that has begun. */
  #carry = '';

  /** Bytes of a token that has begun and not ended. */
  get carried(): number {
    return this.#carry.length;
  }

  /** Forgets the token that has begun, and drops all up to the end of the line. */
  skipLine(): void {
    this.#state = 'skipped line';
    this.#carry = '';
  }

  /** The tokens that end in `chunk`. */
  *feed(chunk: Buffer): Generator<Token, void, void> {
    let begun = 0;
    for (let at = 0; at < chunk.length; ) {
      const before = this.#state;
      if (before === 'skipped line') {
        const end = chunk.indexOf(LINE_FEED, at);
        if (end < 0) return;
        this.#state = 'start';
        at = end + 1;
        continue;
      }
      const byte = chunk[at] ?? 0;
      if (before === 'start') {
        begun = at;
        if (byte === QUOTE || byte === APOSTROPHE) this.#quote = byte;
      }
      const move = this.#next(byte);
      if (typeof move === 'string') {
        this.#state = move;
        // a character that ends a recovery begins the next token
        if (!(before === 'recovery' && move === 'start')) at += 1;
        continue;
      }
      if (!move.before) at += 1;
      const text = this.#carry + chunk.toString('latin1', begun, at);
      this.#carry = '';
      this.#state = move.ends === 'error' ? 'recovery' : 'start';
      yield { kind: move.ends, text };
    }
    if (this.#isInToken()) this.#carry += chunk.toString('latin1', begun);
  }

  #isInToken(): boolean {
    return this.#state !== 'start' && this.#state !== 'recovery' && this.#state !== 'skipped line';
  }

  #next(byte: number): Move {
    switch (this.#state) {
      case 'start':
        return fromStart(byte);
      case 'recovery':
        return (isNeverText(byte) && byte !== TAB) || MARKS.has(byte) ? 'start' : 'recovery';
      case 'string':
        if (byte === this.#quote) return STRING;
        return isNeverText(byte) ? ERROR : byte === BACKSLASH ? 'escape' : 'string';
      case 'escape':
        return isNeverText(byte) ? ERROR : 'string';
      case 'keyword':
        return isLowerCase(byte) ? 'keyword' : KEYWORD;
      default:
        return inNumber(this.#state, byte);
    }
  }
}
