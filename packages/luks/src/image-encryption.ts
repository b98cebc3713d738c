import { hash } from 'node:crypto';
import {
  ImageError,
  type ImageErrorCode,
  type ImageSecret,
  type OpenImageOptions,
} from '@downfold/image';
import type { Storage } from '@downfold/storage';
import { hostOffset } from '@downfold/units';
import type { CipherSpec, HashName } from './cipher-spec.ts';
import { encryptedStorage } from './encrypted-storage.ts';
import { LuksError, type LuksErrorCode } from './errors.ts';
import { type LuksHeader, parseHeader } from './header.ts';
import { type MadeHeader, makeHeader } from './make.ts';
import { SectorCipher } from './sector-cipher.ts';
import { HEADER_BYTES } from './structures.ts';
import { unlock } from './unlock.ts';

/** How guest data of a new image is encrypted; defaults are QEMU's. */
export interface ImageEncryption {
  readonly secret: ImageSecret;
  readonly cipher?: CipherSpec;
  readonly hash?: HashName;
  /** Milliseconds that trying a passphrase takes on this machine. Default 2000. */
  readonly iterTime?: number;
}

/** The header of an image that is encrypted. */
export interface ImageHeader {
  readonly luks: LuksHeader;
  /** Its bytes, without the key material. */
  readonly bytes: Uint8Array;
  /** Byte of the image's file that its area starts at. */
  readonly at: number;
}

/** What opening takes from the options of an image. */
type Unlocking = Pick<OpenImageOptions, 'secret' | 'allowLocked' | 'signal'> & {
  readonly keyWork: number;
};

/** Reads and checks the header of an image whose area is `length` bytes from byte `at` of its file on. @throws ImageError */
export async function readImageHeader(
  file: Storage,
  at: number,
  length: number,
): Promise<ImageHeader> {
  const bytes = new Uint8Array(HEADER_BYTES);
  await file.read(hostOffset(at), bytes);
  return await inImage(file.label, at, async () => ({
    luks: parseHeader(file.label, bytes, length),
    bytes,
    at,
  }));
}

/**
 * What `data` shows to whoever has the secret, from byte `start` of it on. Without a secret, where that is allowed, every access of it rejects with
 * `IMAGE_SECRET_NEEDED`. The key is looked for in the header area of `file`, and remembered with the secret.
 * @throws ImageError
 */
export async function decrypted(
  file: Storage,
  { luks, bytes, at }: ImageHeader,
  data: Storage,
  start: number,
  { secret, allowLocked, signal, keyWork }: Unlocking,
): Promise<Storage> {
  if (secret == null) {
    const locked = (): never => {
      throw new ImageError(
        'IMAGE_SECRET_NEEDED',
        `${file.label}: is encrypted, and no secret was given for it`,
        { image: file.label },
      );
    };
    if (allowLocked !== true) locked();
    return encryptedStorage(data, { encrypt: locked, decrypt: locked }, start);
  }
  const id = idOf(bytes);
  const key =
    secret.keys.get(id) ??
    (await inImage(file.label, at, () =>
      unlock(luks, {
        label: file.label,
        read: (from, target) => file.read(hostOffset(at + from), target),
        passphrase: secret.passphrase,
        keyWork,
        signal,
      }),
    ));
  secret.keys.set(id, key);
  return encryptedStorage(data, new SectorCipher(luks.cipher, key), start);
}

/** The header area of a new image; its key is remembered, so that the image can be opened at once. @throws ImageError */
export async function makeImageHeader(
  label: string,
  { secret, ...options }: ImageEncryption,
): Promise<MadeHeader> {
  return await inImage(label, 0, async () => {
    const made = await makeHeader(label, { ...options, passphrase: secret.passphrase });
    secret.keys.set(idOf(made.bytes.subarray(0, HEADER_BYTES)), made.key);
    return made;
  });
}

/** By what a key is remembered: a header holds the digest of its key. */
function idOf(header: Uint8Array): string {
  return hash('sha256', header);
}

const CODES: Readonly<Record<LuksErrorCode, ImageErrorCode>> = {
  LUKS_NOT_RECOGNISED: 'IMAGE_CORRUPT',
  LUKS_CORRUPT: 'IMAGE_CORRUPT',
  LUKS_UNSUPPORTED: 'IMAGE_UNSUPPORTED',
  LUKS_LIMIT: 'IMAGE_LIMIT',
  LUKS_WRONG_SECRET: 'IMAGE_WRONG_SECRET',
  LUKS_NO_KEY_SLOT: 'IMAGE_WRONG_SECRET',
};

/** Errors of encryption become the image's, with bytes counted from the start of its file. `at`: where the header area lies. */
async function inImage<T>(label: string, at: number, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    if (!(cause instanceof LuksError)) throw cause;
    const { offset } = cause.details;
    const where = typeof offset === 'number' ? { offset: at + offset } : {};
    throw new ImageError(
      CODES[cause.code],
      cause.message,
      { ...cause.details, image: label, ...where },
      cause,
    );
  }
}
