/**
 * Every byte offset and number of a LUKS version 1 header, and nothing else. All integers are big-endian.
 * Source: LUKS On-Disk Format Specification, version 1.2.3.
 */
import { type Layout, layout, raw, u16, u32 } from '@downfold/units';

/** Unit of encryption, and of the offsets in a header. */
export const SECTOR_BYTES = 512;

/** "LUKS\xba\xbe". */
export const MAGIC: readonly number[] = [0x4c, 0x55, 0x4b, 0x53, 0xba, 0xbe];
export const VERSION = 1;
/** Bytes of a salt, and of the digest of the key. */
export const SALT_BYTES = 32;
export const DIGEST_BYTES = 20;

/** What stands before the key slots. Texts end with a NUL. */
export interface Head {
  readonly magic: Uint8Array;
  readonly version: number;
  readonly cipherName: Uint8Array;
  readonly cipherMode: Uint8Array;
  readonly hash: Uint8Array;
  /** In sectors. */
  readonly payload: number;
  readonly keyBytes: number;
  readonly digest: Uint8Array;
  readonly digestSalt: Uint8Array;
  readonly digestIterations: number;
  readonly uuid: Uint8Array;
}

export const head: Layout<Head> = layout<Head>(208, {
  magic: raw(0, 6),
  version: u16(6),
  cipherName: raw(8, 32),
  cipherMode: raw(40, 32),
  hash: raw(72, 32),
  payload: u32(104),
  keyBytes: u32(108),
  digest: raw(112, DIGEST_BYTES),
  digestSalt: raw(132, SALT_BYTES),
  digestIterations: u32(164),
  uuid: raw(168, 40),
});

/** One key slot. */
export interface Slot {
  readonly state: number;
  readonly iterations: number;
  readonly salt: Uint8Array;
  /** Where its key material lies, in sectors. */
  readonly material: number;
  readonly stripes: number;
}

export const slot: Layout<Slot> = layout<Slot>(48, {
  state: u32(0),
  iterations: u32(4),
  salt: raw(8, SALT_BYTES),
  material: u32(40),
  stripes: u32(44),
});

export const SLOTS = 8;
export const SLOT_STATE = { active: 0x00ac_71f3, inactive: 0x0000_dead } as const;
/** Pieces that a key is split into; there has never been another number. */
export const STRIPES = 4000;

/** Bytes of a header with its slots; key material comes after it. */
export const HEADER_BYTES: number = head.size + SLOTS * slot.size;
/** Key material starts on multiples of this. */
export const MATERIAL_ALIGNMENT = 4096;
