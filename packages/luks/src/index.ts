export type { CipherSpec, HashName } from './cipher-spec.ts';
export { describeHeader } from './describe.ts';
export { encryptedStorage, type SectorCrypt } from './encrypted-storage.ts';
export { LuksError, type LuksErrorCode } from './errors.ts';
export { isLuks, type KeySlot, type LuksHeader, parseHeader } from './header.ts';
export {
  decrypted,
  type ImageEncryption,
  type ImageHeader,
  makeImageHeader,
  readImageHeader,
} from './image-encryption.ts';
export { headerAreaBytes, type MadeHeader, type MakeOptions, makeHeader } from './make.ts';
export { SectorCipher } from './sector-cipher.ts';
export { HEADER_BYTES } from './structures.ts';
export { DEFAULT_KEY_WORK, type UnlockOptions, unlock } from './unlock.ts';
