import { hash } from 'node:crypto';
import { unsupported } from './errors.ts';

/** Hash functions of key slots and of ESSIV, as headers call them. */
export type HashName = 'sha1' | 'sha224' | 'sha256' | 'sha384' | 'sha512' | 'ripemd160';

const HASH_BYTES: ReadonlyMap<string, number> = new Map([
  ['sha1', 20],
  ['sha224', 28],
  ['sha256', 32],
  ['sha384', 48],
  ['sha512', 64],
  ['ripemd160', 20],
]);

/** How sectors are encrypted: AES alone. */
export interface CipherSpec {
  readonly mode: 'xts' | 'cbc';
  /** Of the whole key: XTS has two of the same size. */
  readonly keyBytes: number;
  /** What each sector's number is made into: 32 bits of it, 64 bits, or 64 bits encrypted with a hash of the key. */
  readonly iv: 'plain' | 'plain64' | 'essiv';
  /** Of ESSIV; null otherwise. */
  readonly ivHash: HashName | null;
}

/** Bytes of the keys that a mode can have. */
const KEY_BYTES: Readonly<Record<CipherSpec['mode'], readonly number[]>> = {
  xts: [32, 64],
  cbc: [16, 24, 32],
};

/** @throws LuksError `LUKS_UNSUPPORTED` */
export function hashNamed(label: string, name: string): HashName {
  if (isHash(name)) return name;
  throw unsupported(label, `hash ${name}`);
}

function isHash(name: string): name is HashName {
  return HASH_BYTES.has(name);
}

/** Bytes of what a hash function returns. */
export function hashBytes(name: HashName): number {
  return HASH_BYTES.get(name) ?? 0;
}

/**
 * What a header's names and key size mean: `aes`, and a mode such as `xts-plain64` or `cbc-essiv:sha256`.
 * @throws LuksError `LUKS_UNSUPPORTED`
 */
export function cipherSpec(
  label: string,
  name: string,
  mode: string,
  keyBytes: number,
): CipherSpec {
  const parts = /^(xts|cbc)-(?:(plain|plain64)|essiv:([a-z0-9]+))$/.exec(mode);
  const refuse = (): never => {
    throw unsupported(label, `cipher ${name}-${mode} and a key of ${8 * keyBytes} bits`);
  };
  if (name !== 'aes' || parts === null) return refuse();
  const [, chaining, iv, ivHash] = parts;
  const spec: CipherSpec = {
    mode: chaining === 'xts' ? 'xts' : 'cbc',
    keyBytes,
    iv: iv === 'plain' || iv === 'plain64' ? iv : 'essiv',
    ivHash: ivHash === undefined ? null : hashNamed(label, ivHash),
  };
  if (!KEY_BYTES[spec.mode].includes(keyBytes)) refuse();
  // the hash is a key of AES itself
  if (spec.ivHash !== null && ![16, 24, 32].includes(hashBytes(spec.ivHash))) refuse();
  return spec;
}

/** The mode as headers have it. */
export function modeText({ mode, iv, ivHash }: CipherSpec): string {
  return `${mode}-${iv}${ivHash === null ? '' : `:${ivHash}`}`;
}

/** The hash of some bytes. */
export function digestOf(name: HashName, bytes: Uint8Array): Uint8Array {
  return hash(name, bytes, 'buffer');
}
