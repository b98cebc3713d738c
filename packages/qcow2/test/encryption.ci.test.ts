import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { makeEncrypted, secretObject } from '@downfold/compliance';
import { MemoryDisk } from '@downfold/storage-memory';
import { describe, expect, test } from 'vitest';
import { change, encrypted, judgedByQemu, openOn, passphrase } from './encryption-support.ts';
import { dump, haveQemu, load, readAll, run, scratch } from './support.ts';

const SIZE = 1 << 20;

/** QEMU takes seconds to make a header, whatever `iter-time` says. */
describe.skipIf(!haveQemu)('made by QEMU', () => {
  test.each([
    [
      'CBC and ESSIV, extended L2',
      ',extended_l2=on,encrypt.cipher-mode=cbc,encrypt.ivgen-alg=essiv,encrypt.ivgen-hash-alg=sha256,encrypt.hash-alg=sha1',
    ],
  ])('%s: read, described and changed', async (_, how) => {
    using directory = scratch();
    const [key, raw, path] = ['key', 'raw', 'image'].map((name) => directory.path(name)) as [
      string,
      string,
      string,
    ];
    const content = randomBytes(SIZE);
    writeFileSync(key, passphrase);
    writeFileSync(raw, content);
    const options = `encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10${how}`;
    makeEncrypted(
      'convert',
      ...secretObject(key),
      '-f',
      'raw',
      '-O',
      'qcow2',
      '-o',
      options,
      raw,
      path,
    );
    const info = JSON.parse(run('qemu-img', 'info', '--output=json', path));
    const disk = new MemoryDisk();
    await load(disk, '/image', path);
    {
      await using image = await openOn(disk, '/image', 'write');
      expect(Buffer.compare(await readAll(image), content)).toBe(0);
      const { encrypted: isEncrypted, specific } = await image.describe();
      expect([isEncrypted, specific['encrypt']]).toEqual([
        info.encrypted,
        info['format-specific'].data.encrypt,
      ]);
      expect(await image.check()).toMatchObject({ corruptions: 0, leaks: 0 });
      await change(image, content, 2);
    }
    dump(disk, '/image', path);
    judgedByQemu(path, content);
    // and what it makes of that reads here
    const write = 'write -P 7 1000 3000';
    run('qemu-io', ...secretObject(key), '--image-opts', '-c', write, encrypted(path));
    content.fill(7, 1000, 4000);
    const again = new MemoryDisk();
    await load(again, '/image', path);
    await using image = await openOn(again, '/image', 'read');
    expect(Buffer.compare(await readAll(image), content)).toBe(0);
  });
});
