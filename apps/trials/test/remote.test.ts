import { spawnSync } from 'node:child_process';
import { readFile, realpath, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import {
  type ChainEnvironment,
  type ChainPolicy,
  defaultPolicy,
  openChain,
  viewOf,
} from '@downfold/chain';
import { assertSameBytes, foreignServer, httpServer } from '@downfold/compliance';
import { qcow2 } from '@downfold/qcow2';
import { raw } from '@downfold/raw';
import { openBackend, type StorageBackend } from '@downfold/storage';
import { fileBackendDriver } from '@downfold/storage-file';
import { httpBackend } from '@downfold/storage-http';
import { nbdBackend, nbdBackendDriver } from '@downfold/storage-nbd';
import { guestOffset } from '@downfold/units';
import { describe, expect, test } from 'vitest';
import { engine } from '../src/downfold.ts';
import { mounted } from '../src/remote/mounted.ts';
import { must } from '../src/tools/process.ts';
import { checkByQemu, qemuIo, qemuIsHere, sameByQemu, viewByQemu } from '../src/tools/qemu.ts';
import { scratch } from '../src/tools/scratch.ts';

const MiB = 1 << 20;
const nbdkitIsHere = spawnSync('nbdkit', ['--version'], { stdio: 'ignore' }).status === 0;
if (!nbdkitIsHere && process.env['DOWNFOLD_REQUIRE_QEMU'] === '1')
  throw new Error('nbdkit is not installed (Debian: apt-get install nbdkit)');

/** Reads of the whole virtual disk of an image that is opened by name; what it names itself is not followed out of it. */
async function viewByUs(name: string, backend: StorageBackend): Promise<Uint8Array> {
  const policy: ChainPolicy = { ...defaultPolicy, roots: [], locks: 'everywhere' };
  const environment: ChainEnvironment = { backend, formats: [qcow2, raw], policy };
  await using chain = await openChain(name, 'qcow2', environment);
  const top = chain.layers.length - 1;
  const size = chain.layers[top]?.image.geometry.virtualSize ?? 0;
  const bytes = new Uint8Array(size);
  const read = viewOf(chain.layers, top);
  for (let at = 0; at < size; at += 300_000)
    await read(guestOffset(at), bytes.subarray(at, at + 300_000));
  return bytes;
}

/** A qcow2 of 16 MiB with data, zeros and compressed clusters here and there. */
async function someQcow2(path: string): Promise<void> {
  await must('qemu-img', ['create', '-q', '-f', 'qcow2', path, '16M']);
  await qemuIo(path, 'qcow2', [
    'write -P 1 0 3M',
    'write -P 2 5000k 77k',
    'write -z 1M 512k',
    'write -c -P 3 8M 64k',
    'write -P 4 16776704 512',
  ]);
}

describe.skipIf(!(qemuIsHere() && nbdkitIsHere))('images behind servers', () => {
  test.each([
    ['plain', []],
    [
      'in blocks of 4 KiB',
      ['--filter=blocksize-policy', 'blocksize-minimum=4096', 'blocksize-error-policy=error'],
    ],
    ['late', ['--filter=delay', 'delay-read=2ms']],
  ])('a qcow2 behind nbdkit, %s, reads as qemu-img reads it there', async (_, settings) => {
    await using files = await scratch('remote');
    const [socket, image] = [join(files.path, 'nbd'), join(files.path, 'disk.qcow2')];
    await someQcow2(image);
    // whole blocks: nothing is lost by a longer file
    await truncate(image, 8 * MiB);
    const filters = settings.filter((one) => one.startsWith('--'));
    const others = settings.filter((one) => !one.startsWith('--'));
    const args = ['-f', '-r', '-U', socket, ...filters, 'file', image, ...others];
    await using _server = await foreignServer({ path: socket }, 'nbdkit', ...args);
    const uri = `nbd+unix:///?socket=${socket}`;
    const copy = join(files.path, 'copy.raw');
    await must('qemu-img', ['convert', '-f', 'qcow2', '-O', 'raw', uri, copy]);
    assertSameBytes(await viewByUs(uri, nbdBackend()), await readFile(copy), 'the virtual disk');
  });

  test('a qcow2 that is a file of a web server', async () => {
    await using files = await scratch('remote');
    const image = join(files.path, 'disk.qcow2');
    await someQcow2(image);
    await using server = await httpServer(image);
    assertSameBytes(
      await viewByUs(server.url, httpBackend()),
      await viewByQemu(image, 'qcow2'),
      'the virtual disk',
    );
  });

  test('a qcow2 written behind nbdkit, in room that it was given, passes QEMU’s check', async () => {
    await using files = await scratch('remote');
    const [socket, image] = [join(files.path, 'nbd'), join(files.path, 'disk.qcow2')];
    await someQcow2(image);
    const expected = await viewByQemu(image, 'qcow2');
    await truncate(image, 24 * MiB);
    {
      const args = ['-f', '-U', socket, '--filter=blocksize-policy', 'file', image];
      const blocks = ['blocksize-minimum=512', 'blocksize-error-policy=error'];
      await using _server = await foreignServer({ path: socket }, 'nbdkit', ...args, ...blocks);
      const storage = await nbdBackend().open(`nbd+unix:///?socket=${socket}`, 'write');
      await using disk = await qcow2.open(storage, { mode: 'write' });
      const bytes = new Uint8Array(5 * MiB).fill(9);
      expected.set(bytes, 9 * MiB + 12_345);
      await disk.write(guestOffset(9 * MiB + 12_345), bytes, { fill: null });
      await disk.flush();
    }
    expect(await checkByQemu(image)).toBe('');
    assertSameBytes(await viewByQemu(image, 'qcow2'), expected, 'the virtual disk');
  });
});

describe.skipIf(!(qemuIsHere() && nbdkitIsHere))('a commit whose base lies behind a server', () => {
  test.each([
    ['raw', 'qemu-nbd'],
    ['raw', 'nbdkit'],
    ['qcow2', 'nbdkit'],
  ] as const)('a %s base behind %s', async (format, tool) => {
    await using files = await scratch('remote');
    const here = await realpath(files.path);
    const [socket, stored] = [join(here, 'nbd'), join(here, 'elsewhere')];
    const [base, top] = [join(here, 'base'), join(here, 'top.qcow2')];
    await must('qemu-img', ['create', '-q', '-f', format, stored, '16M']);
    await qemuIo(stored, format, ['write -P 1 0 4M', 'write -P 2 10M 1M']);
    if (format === 'qcow2') await truncate(stored, 32 * MiB);
    // the name inside of top is a plain one, beside it; where it leads is our caller's choice
    await must('qemu-img', [
      'create',
      '-q',
      '-u',
      '-f',
      'qcow2',
      '-b',
      'base',
      '-F',
      format,
      top,
      '16M',
    ]);
    const args =
      tool === 'nbdkit'
        ? ['-f', '-U', socket, 'file', stored]
        : ['-t', '-k', socket, '-f', 'raw', '-x', '', '--discard=unmap', stored];
    const uri = `nbd+unix:///?socket=${socket}`;
    const backend = openBackend(
      mounted(fileBackendDriver(), [{ at: base, backend: nbdBackendDriver(), path: uri }]),
    );
    const policy: ChainPolicy = { ...defaultPolicy, locks: 'everywhere' };
    const environment: ChainEnvironment = { backend, formats: [qcow2, raw], policy };
    let before: Uint8Array;
    {
      await using _server = await foreignServer({ path: socket }, tool, ...args);
      {
        // the guest writes to top, through us, over the base behind the server
        await using chain = await openChain(top, 'qcow2', environment);
        const storage = await backend.open(top, 'write');
        await using image = await qcow2.open(storage, { mode: 'write' });
        const fill = viewOf(chain.layers, 0);
        for (const [at, length, byte] of [
          [MiB, 70_000, 7],
          [5 * MiB + 100, 3 * MiB, 8],
          [16 * MiB - 512, 512, 9],
        ] as const)
          await image.write(guestOffset(at), new Uint8Array(length).fill(byte), { fill });
        await image.flush();
      }
      before = await view(top, environment);

      // NBD has no locks: that nobody else writes is for the caller to say
      const request = { file: top, format: 'qcow2', strategy: 'copy-down' };
      await expect(engine(backend).plan(request)).rejects.toMatchObject({
        code: 'CHAIN_REMOTE_LOCK',
      });
      const told = engine(backend, policy);
      const result = await told.run(await told.plan(request), { verify: true });
      expect(result.bytesCopied).toBeGreaterThan(3 * MiB);
    }
    if (format === 'qcow2') expect(await checkByQemu(stored)).toBe('');
    assertSameBytes(await viewByQemu(stored, format), before, 'base, by QEMU');
    await writeFile(join(here, 'before'), before);
    expect(await sameByQemu(stored, format, join(here, 'before'))).toBe('');
  });
});

async function view(path: string, environment: ChainEnvironment): Promise<Uint8Array> {
  await using chain = await openChain(path, 'qcow2', environment);
  const bytes = new Uint8Array(chain.layers.at(-1)?.image.geometry.virtualSize ?? 0);
  await viewOf(chain.layers, chain.layers.length - 1)(guestOffset(0), bytes);
  return bytes;
}
