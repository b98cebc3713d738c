import { readFileSync, writeFileSync } from 'node:fs';
import { comparedInClear, makeEncrypted, secretObject } from '@downfold/compliance';
import { hostOffset } from '@downfold/units';
import { describe, expect, test } from 'vitest';
import {
  describeHeader,
  encryptedStorage,
  parseHeader,
  SectorCipher,
  unlock,
} from '../src/index.ts';
import { bytesIn, encrypted, haveQemu, judged, passphrase, run, storageOf } from './support.ts';

/** QEMU takes seconds to make a header, whatever `iter-time` says. */
describe.skipIf(!haveQemu)('QEMU', () => {
  const settings: readonly string[] = [
    'cipher-alg=aes-256',
    'cipher-alg=aes-256,cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=sha256',
  ];
  test.each(settings)(
    'made it with %s: it reads as in QEMU, and is described alike',
    async (how) => {
      using files = judged();
      const { key, plain, path, content } = files;
      const options = `key-secret=s,iter-time=10,${how}`;
      makeEncrypted(
        'create',
        '-q',
        ...secretObject(key),
        '-f',
        'luks',
        '-o',
        options,
        path,
        String(content.length),
      );
      run(
        'qemu-img',
        'convert',
        '-n',
        ...secretObject(key),
        '--target-image-opts',
        '-f',
        'raw',
        plain,
        encrypted(path),
      );
      const bytes = readFileSync(path);
      const header = parseHeader(path, bytes, bytes.length);
      const read = async (at: number, target: Uint8Array): Promise<void> =>
        void target.set(bytes.subarray(at, at + target.length));
      const found = await unlock(header, { label: path, read, passphrase });
      const file = await storageOf(bytes);
      const cipher = new SectorCipher(header.cipher, found);
      const shown = encryptedStorage(file, cipher, header.payloadAt);
      expect(Buffer.compare(await bytesIn(shown), content)).toBe(0);
      const info = JSON.parse(run('qemu-img', 'info', '--output=json', '-f', 'luks', path));
      expect(describeHeader(header)).toEqual(info['format-specific'].data);
      // and what is written here reads there
      await shown.write(hostOffset(1000), passphrase);
      content.set(passphrase, 1000);
      writeFileSync(path, await bytesIn(file));
      writeFileSync(plain, content);
      run('qemu-img', ...comparedInClear(key, encrypted(path), plain));
    },
  );
});
