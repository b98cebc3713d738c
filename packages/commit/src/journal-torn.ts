const SECTOR_BYTES = 512;
const NEWLINE = 0x0a;
/** Bytes of UTF-8 text without control characters. */
const TEXT = { from: 0x20, to: 0xf8 } as const;
/** What comes after the checksum of a first record. */
const START = new TextEncoder().encode(' 0 {"type":"INTENT","format":1,"job":"');
const CHECKSUM_DIGITS = 8;
/** No first record comes near it: a file of more zeros is something else. */
const MOST_BYTES = 64 << 20;

/**
 * Whether bytes in which no first record is whole can be what a crash left of one: a line cut at any byte, of which sectors are still
 * the zeros that a new file starts as. All else is somebody's file, or was damaged in another way.
 */
export function isTornIntent(bytes: Uint8Array): boolean {
  if (bytes.length > MOST_BYTES) return false;
  const end = bytes.findLastIndex((byte) => byte !== 0) + 1;
  const newline = bytes.indexOf(NEWLINE);
  if (newline >= 0 && newline !== end - 1) return false;
  let lost = 0;
  for (let at = 0; at < end; at += SECTOR_BYTES) {
    const sector = bytes.subarray(at, Math.min(at + SECTOR_BYTES, end));
    if (sector.every((byte) => byte === 0)) lost++;
    else if (!sector.every(isText) || (at === 0 && !startsIntent(sector))) return false;
  }
  // a line that is all there and yet wrong was not torn
  return newline < 0 || lost > 0;
}

/** The newline is known to be the last byte. */
function isText(byte: number): boolean {
  return (byte >= TEXT.from && byte < TEXT.to) || byte === NEWLINE;
}

function startsIntent(line: Uint8Array): boolean {
  const digits = new TextDecoder().decode(line.subarray(0, CHECKSUM_DIGITS));
  const rest = line.subarray(CHECKSUM_DIGITS, CHECKSUM_DIGITS + START.length);
  return /^[0-9a-f]*$/.test(digits) && rest.every((byte, at) => byte === START[at]);
}
