import { pbkdf2, timingSafeEqual } from 'node:crypto';
import { promisify } from 'node:util';
import { hashBytes } from './cipher-spec.ts';
import { LuksError } from './errors.ts';
import { type KeySlot, type LuksHeader, materialBytes } from './header.ts';
import { SectorCipher } from './sector-cipher.ts';
import { mergeKey } from './split.ts';
import { DIGEST_BYTES, STRIPES } from './structures.ts';

const derive = promisify(pbkdf2);

/**
 * How much hashing the key slots of one header may cost, in iterations of blocks: all slots in use, and the digest for each. Eight slots made by
 * QEMU or cryptsetup with their usual two seconds stay below it on today's machines; a hostile header is refused before any time is spent.
 */
export const DEFAULT_KEY_WORK: number = 2 ** 27;

/** What unlocking needs besides the header. */
export interface UnlockOptions {
  readonly label: string;
  /** Fills `target` with bytes of the header area, from byte `at` of it on. */
  readonly read: (at: number, target: Uint8Array) => Promise<void>;
  readonly passphrase: Uint8Array;
  /** See `DEFAULT_KEY_WORK`. */
  readonly keyWork?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * The key that sectors are encrypted with, from the first slot that the passphrase opens. Takes as long as whoever made the slots
 * wanted, in threads of their own.
 * @throws LuksError `LUKS_WRONG_SECRET`, `LUKS_NO_KEY_SLOT` or `LUKS_LIMIT`
 */
export async function unlock(header: LuksHeader, options: UnlockOptions): Promise<Uint8Array> {
  const { label, signal } = options;
  const active = header.slots.filter((slot) => slot.active);
  if (active.length === 0)
    throw new LuksError(
      'LUKS_NO_KEY_SLOT',
      `${label}: no key slot is in use; nothing can decrypt it any more`,
      { file: label },
    );
  const iterations = active.map((one) => one.iterations);
  assertWork(label, { ...header, iterations }, options.keyWork ?? DEFAULT_KEY_WORK);
  for (const slot of active) {
    signal?.throwIfAborted();
    const key = await keyIn(header, slot, options);
    if (await isKey(header, key)) return key;
    key.fill(0);
  }
  throw new LuksError('LUKS_WRONG_SECRET', `${label}: the secret opens none of its key slots`, {
    file: label,
  });
}

/** What trying the slots of a header costs depends on. */
type Work = Pick<LuksHeader, 'cipher' | 'hash' | 'digestIterations'> & {
  /** Of each slot. */
  readonly iterations: readonly number[];
};

/** @throws LuksError `LUKS_LIMIT` */
export function assertWork(
  label: string,
  { cipher, hash, digestIterations, iterations }: Work,
  limit: number,
): void {
  const blocks = Math.ceil(cipher.keyBytes / hashBytes(hash));
  const found = iterations.reduce((sum, each) => sum + each * blocks + digestIterations, 0);
  if (found <= limit) return;
  throw new LuksError(
    'LUKS_LIMIT',
    `${label}: its key slots would take ${found} iterations to try, above the limit of ${limit}`,
    { file: label, limit, found },
  );
}

/** What a slot holds when it is opened with the passphrase: the key, or noise. */
async function keyIn(
  { cipher, hash }: LuksHeader,
  { salt, iterations, materialAt }: KeySlot,
  { read, passphrase }: UnlockOptions,
): Promise<Uint8Array> {
  const material = new Uint8Array(materialBytes(cipher));
  await read(materialAt, material);
  const slotKey = await derive(passphrase, salt, iterations, cipher.keyBytes, hash);
  new SectorCipher(cipher, slotKey).decrypt(0, material, material);
  const key = mergeKey(material, STRIPES, hash);
  slotKey.fill(0);
  material.fill(0);
  return key;
}

async function isKey(header: LuksHeader, key: Uint8Array): Promise<boolean> {
  const { digestSalt, digestIterations, hash, digest } = header;
  return timingSafeEqual(
    await derive(key, digestSalt, digestIterations, DIGEST_BYTES, hash),
    digest,
  );
}
