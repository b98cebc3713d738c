import { type Cipheriv, createCipheriv, createDecipheriv, type Decipheriv } from 'node:crypto';
import { type CipherSpec, digestOf } from './cipher-spec.ts';
import { SECTOR_BYTES } from './structures.ts';

/** Bytes worked on at a time: all buffers together stay within a core's cache. */
const BATCH_BYTES = 64 << 10;
const BLOCK_BYTES = 16;
const BLOCK_WORDS = BLOCK_BYTES / 4;
const SECTOR_BLOCKS = SECTOR_BYTES / BLOCK_BYTES;
const SECTOR_WORDS = SECTOR_BYTES / 4;
const TWO_TO_32 = 0x1_0000_0000;

/**
 * Encrypts and decrypts runs of sectors with one key. AES itself is called for many blocks at a time, in ECB mode, and what chains them is
 * done here: a cipher object for every sector would cost fifteen times as much.
 */
export class SectorCipher {
  readonly #spec: CipherSpec;
  readonly #encrypt: Cipheriv;
  readonly #decrypt: Decipheriv;
  /** What turns sector numbers into initial values, in this order. */
  readonly #initial: readonly Cipheriv[];
  readonly #work: Uint32Array = new Uint32Array(BATCH_BYTES / 4);
  /** XTS: the tweak of every block. CBC: what each block is chained to. */
  readonly #chain: Uint32Array = new Uint32Array(BATCH_BYTES / 4);
  readonly #numbers: Uint32Array = new Uint32Array((BATCH_BYTES / SECTOR_BYTES) * BLOCK_WORDS);

  /** @param key of `spec.keyBytes` bytes */
  constructor(spec: CipherSpec, key: Uint8Array) {
    this.#spec = spec;
    const half = spec.keyBytes / 2;
    const [own, tweak] =
      spec.mode === 'xts' ? [key.subarray(0, half), key.subarray(half)] : [key, null];
    this.#encrypt = ecb(createCipheriv, own);
    this.#decrypt = ecb(createDecipheriv, own);
    const initial = spec.ivHash === null ? [] : [digestOf(spec.ivHash, key)];
    if (tweak !== null) initial.push(tweak);
    this.#initial = initial.map((one) => ecb(createCipheriv, one));
  }

  /**
   * Encrypts whole sectors, `sector` being the number of the first one. `target` is as long as `source`, and may be the same bytes.
   */
  encrypt(sector: number, source: Uint8Array, target: Uint8Array): void {
    this.#inBatches(sector, source, target, (words, initial) =>
      this.#spec.mode === 'xts'
        ? this.#xts(this.#encrypt, words, initial)
        : this.#chainUp(words, initial),
    );
  }

  /** As `encrypt`, the other way round. */
  decrypt(sector: number, source: Uint8Array, target: Uint8Array): void {
    this.#inBatches(sector, source, target, (words, initial) =>
      this.#spec.mode === 'xts'
        ? this.#xts(this.#decrypt, words, initial)
        : this.#unchain(words, initial),
    );
  }

  #inBatches(
    sector: number,
    source: Uint8Array,
    target: Uint8Array,
    use: (words: Uint32Array, initial: Uint32Array) => Uint32Array,
  ): void {
    for (let at = 0; at < source.length; at += BATCH_BYTES) {
      const part = source.subarray(at, at + BATCH_BYTES);
      const words = this.#work.subarray(0, part.length / 4);
      bytesIn(words).set(part);
      const initial = this.#initialValues(sector + at / SECTOR_BYTES, part.length / SECTOR_BYTES);
      target.set(bytesIn(use(words, initial)), at);
    }
  }

  /** One block for every sector from `first` on. */
  #initialValues(first: number, count: number): Uint32Array {
    const numbers = this.#numbers.subarray(0, count * BLOCK_WORDS);
    for (let index = 0; index < count; index++) {
      numbers[index * BLOCK_WORDS] = (first + index) % TWO_TO_32;
      if (this.#spec.iv !== 'plain')
        numbers[index * BLOCK_WORDS + 1] = Math.floor((first + index) / TWO_TO_32);
    }
    return this.#initial.reduce(run, numbers);
  }

  /** XTS, both ways. Source: IEEE 1619-2018, 5.3. */
  #xts(cipher: Cipheriv | Decipheriv, words: Uint32Array, initial: Uint32Array): Uint32Array {
    const tweaks = this.#chain;
    expandTweaks(initial, tweaks);
    xor(words, tweaks);
    const result = run(words, cipher);
    xor(result, tweaks);
    return result;
  }

  /** CBC encryption: each block waits for the one before it, so one block of every sector is done at a time. */
  #chainUp(words: Uint32Array, initial: Uint32Array): Uint32Array {
    const sectors = words.length / SECTOR_WORDS;
    const column = this.#chain.subarray(0, sectors * BLOCK_WORDS);
    let before = initial;
    for (let block = 0; block < SECTOR_BLOCKS; block++) {
      for (let index = 0; index < column.length; index++)
        column[index] = at(words, placeIn(index, block)) ^ at(before, index);
      before = run(column, this.#encrypt);
      for (let index = 0; index < column.length; index++)
        words[placeIn(index, block)] = at(before, index);
    }
    return words;
  }

  #unchain(words: Uint32Array, initial: Uint32Array): Uint32Array {
    const chain = this.#chain.subarray(0, words.length);
    chain.set(words.subarray(0, words.length - BLOCK_WORDS), BLOCK_WORDS);
    for (let sector = 0; sector * SECTOR_WORDS < words.length; sector++)
      chain.set(
        initial.subarray(sector * BLOCK_WORDS, (sector + 1) * BLOCK_WORDS),
        sector * SECTOR_WORDS,
      );
    const result = run(words, this.#decrypt);
    xor(result, chain);
    return result;
  }
}

/** Where word `index` of a column, which has one block of every sector, lies in the sectors. */
function placeIn(index: number, block: number): number {
  return (index >>> 2) * SECTOR_WORDS + block * BLOCK_WORDS + (index & 3);
}

function ecb<T extends Cipheriv | Decipheriv>(
  make: (algorithm: string, key: Uint8Array, iv: null) => T,
  key: Uint8Array,
): T {
  const cipher = make(`aes-${key.length * 8}-ecb`, key, null);
  cipher.setAutoPadding(false);
  return cipher;
}

/** What a cipher makes of whole blocks; one in ECB mode keeps nothing from one call to the next. */
function run(words: Uint32Array, cipher: Cipheriv | Decipheriv): Uint32Array {
  const bytes = cipher.update(bytesIn(words));
  const whole = bytes.byteOffset % 4 === 0 ? bytes : new Uint8Array(bytes);
  return new Uint32Array(whole.buffer, whole.byteOffset, whole.length / 4);
}

/** The tweak of every block: that of a sector's first one is given, each next one is the one before times x, in GF(2^128). */
function expandTweaks(initial: Uint32Array, tweaks: Uint32Array): void {
  for (let from = 0, to = 0; from < initial.length; from += BLOCK_WORDS) {
    let [a, b, c, d] = [
      at(initial, from),
      at(initial, from + 1),
      at(initial, from + 2),
      at(initial, from + 3),
    ];
    for (let block = 0; block < SECTOR_BLOCKS; block++, to += BLOCK_WORDS) {
      tweaks[to] = a;
      tweaks[to + 1] = b;
      tweaks[to + 2] = c;
      tweaks[to + 3] = d;
      const carry = -(d >>> 31) & 0x87;
      d = (d << 1) | (c >>> 31);
      c = (c << 1) | (b >>> 31);
      b = (b << 1) | (a >>> 31);
      a = (a << 1) ^ carry;
    }
  }
}

/** Changes `words`; `other` may be longer. */
function xor(words: Uint32Array, other: Uint32Array): void {
  for (let index = 0; index < words.length; index++)
    words[index] = at(words, index) ^ at(other, index);
}

function at(words: Uint32Array, index: number): number {
  return words[index] as number;
}

function bytesIn(words: Uint32Array): Uint8Array {
  return new Uint8Array(words.buffer, words.byteOffset, words.byteLength);
}
