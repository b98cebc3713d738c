import { type CipherSpec, cipherSpec, type HashName, hashNamed } from './cipher-spec.ts';
import { corrupt, LuksError, unsupported } from './errors.ts';
import {
  HEADER_BYTES,
  head,
  MAGIC,
  SECTOR_BYTES,
  SLOT_STATE,
  SLOTS,
  STRIPES,
  slot,
  VERSION,
} from './structures.ts';

/** One of the places that hold the key, each encrypted with another passphrase. */
export interface KeySlot {
  readonly active: boolean;
  readonly iterations: number;
  readonly salt: Uint8Array;
  /** Byte of its key material within the header area. */
  readonly materialAt: number;
}

/** A checked header. */
export interface LuksHeader {
  readonly cipher: CipherSpec;
  /** Of key slots and of the key's digest. */
  readonly hash: HashName;
  /** Byte that encrypted data starts at where the header is the file's own; the end of the key material. */
  readonly payloadAt: number;
  readonly digest: Uint8Array;
  readonly digestSalt: Uint8Array;
  readonly digestIterations: number;
  readonly uuid: string;
  readonly slots: readonly KeySlot[];
}

/** Whether a file that starts with `bytes` claims to be encrypted with LUKS, of any version. */
export function isLuks(bytes: Uint8Array): boolean {
  return bytes.length >= MAGIC.length && MAGIC.every((byte, index) => bytes[index] === byte);
}

/**
 * Reads and checks a header. Nothing is decrypted, and no time is spent on its key slots.
 * @param bytes the first `HEADER_BYTES` of its area
 * @param areaBytes how long its area is, key material included: the length of the file where the header is the file's own
 * @throws LuksError
 */
export function parseHeader(label: string, bytes: Uint8Array, areaBytes: number): LuksHeader {
  if (!isLuks(bytes))
    throw new LuksError('LUKS_NOT_RECOGNISED', `${label}: has no LUKS header`, { file: label });
  if (bytes.length < HEADER_BYTES || areaBytes < HEADER_BYTES)
    throw corrupt(label, 'ends too early', Math.min(bytes.length, areaBytes));
  const fixed = head.decode(bytes);
  if (fixed.version !== VERSION) throw unsupported(label, `LUKS version ${fixed.version}`);
  if (fixed.digestIterations === 0) throw corrupt(label, 'a digest of no iterations', 164);
  const header: LuksHeader = {
    cipher: cipherSpec(label, text(fixed.cipherName), text(fixed.cipherMode), fixed.keyBytes),
    hash: hashNamed(label, text(fixed.hash)),
    payloadAt: fixed.payload * SECTOR_BYTES,
    digest: fixed.digest.slice(),
    digestSalt: fixed.digestSalt.slice(),
    digestIterations: fixed.digestIterations,
    uuid: text(fixed.uuid),
    slots: Array.from({ length: SLOTS }, (_, index) => slotOf(label, bytes, index)),
  };
  assertApart(label, header, areaBytes);
  return header;
}

function slotOf(label: string, bytes: Uint8Array, index: number): KeySlot {
  const at = head.size + index * slot.size;
  const { state, iterations, salt, material, stripes } = slot.decode(bytes, at);
  const active = state === SLOT_STATE.active;
  if (!active && state !== SLOT_STATE.inactive)
    throw corrupt(label, `key slot ${index} is neither in use nor free`, at);
  if (active && iterations === 0)
    throw corrupt(label, `key slot ${index} has no iterations`, at + 4);
  if (stripes !== STRIPES)
    throw corrupt(label, `key slot ${index} has ${stripes} stripes, expected ${STRIPES}`, at + 44);
  return { active, iterations, salt: salt.slice(), materialAt: material * SECTOR_BYTES };
}

/** Bytes of the key material of each slot. */
export function materialBytes({ keyBytes }: CipherSpec): number {
  return keyBytes * STRIPES;
}

/** Header, key material and data must not share a byte. */
function assertApart(label: string, header: LuksHeader, areaBytes: number): void {
  const length = materialBytes(header.cipher);
  let end = HEADER_BYTES;
  const inOrder = header.slots
    .map(({ materialAt }, index) => ({ index, materialAt }))
    .sort((one, other) => one.materialAt - other.materialAt);
  for (const { index, materialAt } of inOrder) {
    const field = head.size + index * slot.size + 40;
    if (materialAt < end)
      throw corrupt(
        label,
        `key slot ${index} at ${materialAt} overlaps what lies before it`,
        field,
      );
    end = materialAt + length;
    if (end > areaBytes)
      throw corrupt(label, `key slot ${index} at ${materialAt} reaches past the end`, field);
  }
  if (header.payloadAt < end)
    throw corrupt(
      label,
      `data at ${header.payloadAt} overlaps key slots, which end at ${end}`,
      104,
    );
}

/** ASCII text up to the first NUL; anything unprintable becomes `?`. */
function text(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  return Array.from(end < 0 ? bytes : bytes.subarray(0, end), (code) =>
    code >= 0x20 && code < 0x7f ? String.fromCharCode(code) : '?',
  ).join('');
}
