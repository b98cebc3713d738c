/**
 * QEMU's modified UTF-8: U+0000 may be two bytes; surrogates and noncharacters are invalid. Bytes are held in strings, one
 * per UTF-16 unit, as Node's `latin1` makes them.
 */

/** Least code point of a sequence of so many bytes. */
const LEAST = [0, 0, 0x80, 0x800, 0x1_0000, 0x20_0000, 0x400_0000];

/** Whether text may hold the code point. */
export function isCharacter(codePoint: number): boolean {
  return (
    codePoint >= 0 &&
    codePoint <= 0x10_ffff &&
    !(codePoint >= 0xd800 && codePoint <= 0xdfff) &&
    !(codePoint >= 0xfdd0 && codePoint <= 0xfdef) &&
    (codePoint & 0xfffe) !== 0xfffe
  );
}

/** The code point at `at`, -1 when it is invalid, and how many bytes it takes. */
function codePointAt(
  bytes: string,
  at: number,
): { readonly codePoint: number; readonly length: number } {
  const first = bytes.charCodeAt(at);
  if (first < 0x80) return { codePoint: first, length: 1 };
  if (first < 0xc0 || first >= 0xfe) return { codePoint: -1, length: 1 };
  const wanted = Math.clz32(~(first << 24));
  let codePoint = first & (0x7f >> wanted);
  let length = 1;
  while (length < wanted && (bytes.charCodeAt(at + length) & 0xc0) === 0x80) {
    codePoint = codePoint * 64 + (bytes.charCodeAt(at + length) & 0x3f);
    length += 1;
  }
  const zero = codePoint === 0 && wanted === 2;
  const valid =
    length === wanted && isCharacter(codePoint) && (codePoint >= (LEAST[wanted] ?? 0) || zero);
  return { codePoint: valid ? codePoint : -1, length };
}

/** @param invalid what to put in the place of what is no character, or `null`: give up. @returns `null` when given up */
function decode(bytes: string, invalid: string | null): string | null {
  let text = '';
  for (let at = 0; at < bytes.length; ) {
    const { codePoint, length } = codePointAt(bytes, at);
    if (codePoint < 0 && invalid === null) return null;
    text += codePoint < 0 ? invalid : String.fromCodePoint(codePoint);
    at += length;
  }
  return text;
}

/** The text, or `null` when some of it is invalid. */
export function decodeStrict(bytes: string): string | null {
  return decode(bytes, null);
}

/** The text with U+FFFD for what is invalid. */
export function decodeLenient(bytes: string): string {
  return decode(bytes, '\ufffd') ?? '';
}
