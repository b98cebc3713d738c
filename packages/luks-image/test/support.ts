import { type ImageFormat, imageSecret } from '@downfold/image';
import type { ImageEncryption } from '@downfold/luks';
import { luks } from '../src/index.ts';

export const passphrase: Uint8Array = new TextEncoder().encode('open sesame');

/** Encryption with as little work as anybody wants, for tests. */
export const encryption = (): ImageEncryption => ({
  secret: imageSecret(passphrase),
  iterTime: 0,
});

/** The format with a secret of its own: everything that opens and creates images by it has that. */
export function withSecret(): ImageFormat {
  const own = encryption();
  return {
    ...luks,
    open: (storage, options) => luks.open(storage, { ...options, secret: own.secret }),
    create: (storage, options) => luks.create(storage, { ...options, encryption: own }),
  };
}
