import { posix } from 'node:path';
import { numberOf } from './number-of.ts';

/** Bytes of a file's name, at most; as Linux. */
const LONGEST_NAME_BYTES = 255;

/**
 * The path of what lies beside a file and belongs to it: its own with a suffix. Of a name that would be too long the end gives way to a number that stands for
 * all of it: what belongs to different files has different names.
 */
export function pathBeside(path: string, suffix: string): string {
  const name = posix.basename(path);
  if (Buffer.byteLength(name + suffix) <= LONGEST_NAME_BYTES) return `${path}${suffix}`;
  const end = `~${numberOf(name)}${suffix}`;
  const room = LONGEST_NAME_BYTES - Buffer.byteLength(end);
  return `${path.slice(0, -name.length)}${firstBytes(name, room)}${end}`;
}

/** As many characters as so many bytes hold. */
function firstBytes(text: string, bytes: number): string {
  // what is cut stays in the decoder
  return new TextDecoder().decode(Buffer.from(text).subarray(0, bytes), { stream: true });
}
