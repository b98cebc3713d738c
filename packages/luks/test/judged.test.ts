import { writeFileSync } from 'node:fs';
import { comparedInClear } from '@downfold/compliance';
import { hostOffset } from '@downfold/units';
import { describe, expect, test } from 'vitest';
import { encryptedStorage, type HashName, makeHeader, SectorCipher } from '../src/index.ts';
import {
  bytesIn,
  encrypted,
  haveCryptsetup,
  haveQemu,
  judged,
  passphrase,
  run,
  scratch,
  specs,
  storageOf,
} from './support.ts';

const SIZE = 1 << 20;

describe.skipIf(!haveQemu)('QEMU', () => {
  const hashes: readonly HashName[] = ['sha1', 'sha256', 'sha512'];
  test.each(
    Object.entries(specs).map(([name, cipher], index) => ({
      name,
      cipher,
      hash: hashes[index % hashes.length] as HashName,
    })),
  )('reads $name, $hash, made here', async ({ cipher, hash }) => {
    using files = judged();
    const { key, plain, path, content } = files;
    const header = await makeHeader(path, { passphrase, cipher, hash, iterTime: 1 });
    const file = await storageOf(header.bytes);
    await encryptedStorage(file, new SectorCipher(cipher, header.key), header.bytes.length).write(
      hostOffset(0),
      content,
    );
    writeFileSync(path, await bytesIn(file));
    run('qemu-img', ...comparedInClear(key, encrypted(path), plain));
  });
});

describe.skipIf(!haveCryptsetup)('cryptsetup', () => {
  test('opens and describes what was made here', async () => {
    using directory = scratch();
    const [key, path] = [directory.path('key'), directory.path('image')];
    writeFileSync(key, passphrase);
    const { bytes } = await makeHeader(path, { passphrase, iterTime: 1 });
    writeFileSync(path, Buffer.concat([bytes, Buffer.alloc(SIZE)]));
    run('cryptsetup', 'open', '--test-passphrase', '--key-file', key, path);
    const text = run('cryptsetup', 'luksDump', path);
    expect(text).toMatch(/Cipher name:\s+aes\n/);
    expect(text).toMatch(/Cipher mode:\s+xts-plain64\n/);
    expect(text).toMatch(/Key Slot 0: ENABLED/);
    expect(() =>
      run('cryptsetup', 'open', '--test-passphrase', '--key-file', path, path),
    ).toThrow();
  });
});
