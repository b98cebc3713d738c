import { describe, expect, test } from 'vitest';
import {
  describeHeader,
  HEADER_BYTES,
  isLuks,
  type LuksErrorCode,
  makeHeader,
  parseHeader,
  unlock,
} from '../src/index.ts';
import { passphrase, specs } from './support.ts';

const made = await makeHeader('made', { passphrase, iterTime: 0 });

/** What becomes of the header when somebody changes it. */
function changed(change: (view: DataView, bytes: Uint8Array) => void): Uint8Array {
  const bytes = made.bytes.slice();
  change(new DataView(bytes.buffer), bytes);
  return bytes;
}

function opening(bytes: Uint8Array, secret = passphrase, keyWork?: number): Promise<Uint8Array> {
  return unlock(parseHeader('image', bytes, bytes.length), {
    label: 'image',
    read: async (at, target) => target.set(bytes.subarray(at, at + target.length)),
    passphrase: secret,
    keyWork,
  });
}

const SLOT = 208;

describe('headers', () => {
  test.each(Object.entries(specs))('%s: its passphrase opens what was made', async (_, cipher) => {
    const { bytes, key } = await makeHeader('made', {
      passphrase,
      cipher,
      hash: 'sha512',
      iterTime: 0,
    });
    expect(parseHeader('made', bytes, bytes.length).cipher).toEqual(cipher);
    expect(Buffer.compare(await opening(bytes), key)).toBe(0);
  });

  test('hold nothing of the key in the clear', async () => {
    const key = Buffer.from(await opening(made.bytes));
    expect(Buffer.from(made.bytes).includes(key.subarray(0, 16))).toBe(false);
  });

  test('take the time that was asked for', async () => {
    const slow = await makeHeader('slow', { passphrase, iterTime: 50 });
    const facts = describeHeader(parseHeader('slow', slow.bytes, slow.bytes.length));
    expect(facts['master-key-iters']).toBeGreaterThan(1000);
  });

  test('are not made so that nobody would open them again', async () => {
    const forever = makeHeader('forever', { passphrase, iterTime: 3_600_000 });
    await expect(forever).rejects.toMatchObject({ code: 'LUKS_LIMIT' });
  });

  test('any slot may hold the key', async () => {
    const bytes = changed((view, all) => {
      // slot 5 becomes what slot 0 was
      const material = view.getUint32(SLOT + 5 * 48 + 40);
      all.copyWithin(material * 512, 4096, 4096 + 256_000);
      all.copyWithin(SLOT + 5 * 48, SLOT, SLOT + 40);
      view.setUint32(SLOT, 0xdead);
    });
    expect(Buffer.compare(await opening(bytes), made.key)).toBe(0);
  });
});

describe('refusals', () => {
  const cases: readonly [string, LuksErrorCode, (view: DataView, bytes: Uint8Array) => void][] = [
    ['another magic', 'LUKS_NOT_RECOGNISED', (view) => view.setUint8(0, 0)],
    ['LUKS 2', 'LUKS_UNSUPPORTED', (view) => view.setUint16(6, 2)],
    ['another cipher', 'LUKS_UNSUPPORTED', (_, bytes) => bytes.set(Buffer.from('twofish'), 8)],
    ['another mode', 'LUKS_UNSUPPORTED', (_, bytes) => bytes.set(Buffer.from('ecb-plain64'), 40)],
    ['another hash', 'LUKS_UNSUPPORTED', (_, bytes) => bytes.set(Buffer.from('md5\0'), 72)],
    ['a key of 8 GiB', 'LUKS_UNSUPPORTED', (view) => view.setUint32(108, 0xffff_fffc)],
    ['no iterations', 'LUKS_CORRUPT', (view) => view.setUint32(SLOT + 4, 0)],
    ['a digest without iterations', 'LUKS_CORRUPT', (view) => view.setUint32(164, 0)],
    ['a slot of another state', 'LUKS_CORRUPT', (view) => view.setUint32(SLOT, 1)],
    ['more stripes', 'LUKS_CORRUPT', (view) => view.setUint32(SLOT + 44, 0xffff_ffff)],
    ['no stripes', 'LUKS_CORRUPT', (view) => view.setUint32(SLOT + 44, 0)],
    ['a slot in the header', 'LUKS_CORRUPT', (view) => view.setUint32(SLOT + 40, 1)],
    ['a slot in another', 'LUKS_CORRUPT', (view) => view.setUint32(SLOT + 48 + 40, 9)],
    ['a slot past the end', 'LUKS_CORRUPT', (view) => view.setUint32(SLOT + 40, 0xffff_ffff)],
    ['data in the last slot', 'LUKS_CORRUPT', (view) => view.setUint32(104, 4000)],
  ];
  test.each(cases)('%s', (_, code, change) => {
    const bytes = changed(change);
    expect(() => parseHeader('image', bytes, bytes.length)).toThrow(
      expect.objectContaining({ code }),
    );
  });

  test('an area that ends in the header', () => {
    const short = made.bytes.subarray(0, HEADER_BYTES - 1);
    expect(isLuks(short)).toBe(true);
    expect(() => parseHeader('image', short, short.length)).toThrow(
      expect.objectContaining({ code: 'LUKS_CORRUPT' }),
    );
  });

  test('another passphrase, and no key slot in use', async () => {
    const wrong = new TextEncoder().encode('open says me');
    await expect(opening(made.bytes, wrong)).rejects.toMatchObject({ code: 'LUKS_WRONG_SECRET' });
    const none = changed((view) => view.setUint32(SLOT, 0xdead));
    await expect(opening(none)).rejects.toMatchObject({ code: 'LUKS_NO_KEY_SLOT' });
  });

  test('more work than allowed, before any is done', async () => {
    for (const field of [SLOT + 4, 164]) {
      const bytes = changed((view) => view.setUint32(field, 0xffff_ffff));
      const began = performance.now();
      await expect(opening(bytes)).rejects.toMatchObject({ code: 'LUKS_LIMIT' });
      expect(performance.now() - began).toBeLessThan(1000);
    }
    await expect(opening(made.bytes, passphrase, 1000)).rejects.toMatchObject({
      code: 'LUKS_LIMIT',
    });
  });

  test('no error holds the passphrase', async () => {
    const secret = new TextEncoder().encode('not to be seen');
    const error: unknown = await opening(made.bytes, secret).catch((cause: unknown) => cause);
    expect(JSON.stringify(error) + String(error)).not.toContain('seen');
  });
});
