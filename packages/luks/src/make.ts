import { pbkdf2, randomBytes, randomUUID } from 'node:crypto';
import { promisify } from 'node:util';
import { alignUp } from '@downfold/units';
import { type CipherSpec, cipherSpec, type HashName, modeText } from './cipher-spec.ts';
import { materialBytes } from './header.ts';
import { SectorCipher } from './sector-cipher.ts';
import { splitKey } from './split.ts';
import {
  DIGEST_BYTES,
  head,
  MAGIC,
  MATERIAL_ALIGNMENT,
  SALT_BYTES,
  SECTOR_BYTES,
  SLOT_STATE,
  SLOTS,
  STRIPES,
  slot,
  VERSION,
} from './structures.ts';
import { assertWork, DEFAULT_KEY_WORK } from './unlock.ts';

const derive = promisify(pbkdf2);

/** How a new header is made; all defaults are QEMU's. */
export interface MakeOptions {
  readonly passphrase: Uint8Array;
  /** `aes-256-xts-plain64` in parts. */
  readonly cipher?: CipherSpec;
  /** Default sha256. */
  readonly hash?: HashName;
  /** Milliseconds that opening the key slot takes on this machine; 0: as few as anybody makes, which protects no passphrase. Default 2000. */
  readonly iterTime?: number;
}

/** A header that was made, and the key that it holds. */
export interface MadeHeader {
  /** The whole area: header, key material of the first slot, and room for that of the others. */
  readonly bytes: Uint8Array;
  readonly key: Uint8Array;
}

const DEFAULT_CIPHER: CipherSpec = { mode: 'xts', keyBytes: 64, iv: 'plain64', ivHash: null };
const DEFAULT_ITER_TIME = 2000;
/** As few iterations as anybody makes. */
const FEWEST_ITERATIONS = 1000;
/** Of what is tried to find out how fast this machine is. */
const TRIED_ITERATIONS = 1 << 16;
/** The digest is checked for every slot that is tried, and takes a fraction of its time. */
const DIGEST_SHARE = 8;

/** Bytes of a header area. */
export function headerAreaBytes(cipher: CipherSpec = DEFAULT_CIPHER): number {
  return MATERIAL_ALIGNMENT + SLOTS * materialStride(cipher);
}

function materialStride(cipher: CipherSpec): number {
  return alignUp(materialBytes(cipher), MATERIAL_ALIGNMENT);
}

/**
 * Makes a header with a new random key, which the first slot holds.
 * @throws LuksError `LUKS_UNSUPPORTED`; `LUKS_LIMIT` for an `iterTime` with which nobody would open it again
 */
export async function makeHeader(label: string, options: MakeOptions): Promise<MadeHeader> {
  const { passphrase, cipher = DEFAULT_CIPHER, hash = 'sha256' } = options;
  cipherSpec(label, 'aes', modeText(cipher), cipher.keyBytes);
  const iterations = await iterationsIn(options.iterTime ?? DEFAULT_ITER_TIME, cipher, hash);
  const digestIterations = Math.max(FEWEST_ITERATIONS, Math.ceil(iterations / DIGEST_SHARE));
  // what is made must be opened again
  assertWork(label, { cipher, hash, digestIterations, iterations: [iterations] }, DEFAULT_KEY_WORK);
  const key = randomBytes(cipher.keyBytes);
  const [salt, digestSalt] = [randomBytes(SALT_BYTES), randomBytes(SALT_BYTES)];
  const bytes = new Uint8Array(headerAreaBytes(cipher));
  head.encode(
    {
      magic: Uint8Array.from(MAGIC),
      version: VERSION,
      cipherName: padded('aes', 32),
      cipherMode: padded(modeText(cipher), 32),
      hash: padded(hash, 32),
      payload: bytes.length / SECTOR_BYTES,
      keyBytes: cipher.keyBytes,
      digest: await derive(key, digestSalt, digestIterations, DIGEST_BYTES, hash),
      digestSalt,
      digestIterations,
      uuid: padded(randomUUID(), 40),
    },
    bytes,
  );
  for (let index = 0; index < SLOTS; index++)
    slot.encode(
      {
        state: index === 0 ? SLOT_STATE.active : SLOT_STATE.inactive,
        iterations: index === 0 ? iterations : 0,
        salt: index === 0 ? salt : new Uint8Array(SALT_BYTES),
        material: (MATERIAL_ALIGNMENT + index * materialStride(cipher)) / SECTOR_BYTES,
        stripes: STRIPES,
      },
      bytes,
      head.size + index * slot.size,
    );
  const material = splitKey(key, STRIPES, hash);
  const slotKey = await derive(passphrase, salt, iterations, cipher.keyBytes, hash);
  new SectorCipher(cipher, slotKey).encrypt(0, material, material);
  bytes.set(material, MATERIAL_ALIGNMENT);
  slotKey.fill(0);
  return { bytes, key };
}

/** How many iterations take `milliseconds` on this machine, as it is now. */
async function iterationsIn(
  milliseconds: number,
  { keyBytes }: CipherSpec,
  hash: HashName,
): Promise<number> {
  if (milliseconds === 0) return FEWEST_ITERATIONS;
  const began = performance.now();
  await derive('', 'speed', TRIED_ITERATIONS, keyBytes, hash);
  const each = (performance.now() - began) / TRIED_ITERATIONS;
  return Math.max(FEWEST_ITERATIONS, Math.round(milliseconds / each));
}

function padded(text: string, bytes: number): Uint8Array {
  const field = new Uint8Array(bytes);
  field.set(new TextEncoder().encode(text));
  return field;
}
