import { crc32 } from 'node:zlib';

/** Bytes of what says where it belongs. */
export const SECTOR = 512;

/** What a sector says of itself. */
export interface Stamp {
  readonly sector: number;
  readonly sequence: number;
}

/** A sector that says where it belongs and which write it is of; the last four bytes are the CRC-32 of the others. */
export function stamp(sector: number, sequence: number): Buffer {
  const bytes = Buffer.alloc(SECTOR, 1 + ((sector * 31 + sequence) % 255));
  bytes.writeUInt32LE(sector, 0);
  bytes.writeUInt32LE(sequence, 4);
  bytes.writeUInt32LE(crc32(bytes.subarray(0, SECTOR - 4)), SECTOR - 4);
  return bytes;
}

/** `count` sectors of one write. */
export function stamps(first: number, count: number, sequence: number): Buffer {
  return Buffer.concat(Array.from({ length: count }, (_, index) => stamp(first + index, sequence)));
}

/** What a sector says, `zeros`, or null: it is foreign or torn. */
export function readStamp(bytes: Uint8Array): Stamp | 'zeros' | null {
  const found = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const [sector, sequence] = [found.readUInt32LE(0), found.readUInt32LE(4)];
  if (stamp(sector, sequence).equals(found)) return { sector, sequence };
  return found.every((byte) => byte === 0) ? 'zeros' : null;
}

/** What a sector that is not what it should be is, for people. */
export function describeSector(bytes: Uint8Array): string {
  const found = readStamp(bytes);
  if (found === 'zeros') return 'zeros';
  return found === null
    ? `foreign or torn (starts with ${Buffer.from(bytes.subarray(0, 8)).toString('hex')})`
    : `sector ${found.sector}, sequence ${found.sequence}`;
}
