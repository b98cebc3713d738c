import { readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { assertSameBytes, foreignServer } from '@downfold/compliance';
import type { Storage } from '@downfold/storage';
import { byteLength, hostOffset } from '@downfold/units';
import { describe, expect, test } from 'vitest';
import { nbdBackend } from '../src/index.ts';
import { havePeers, nbdkit, pattern, run, scratch } from './support.ts';

const MiB = 1 << 20;
const backend = nbdBackend();

async function readAt(file: Storage, offset: number, length: number): Promise<Uint8Array> {
  const target = new Uint8Array(length);
  await file.read(hostOffset(offset), target);
  return target;
}

describe.skipIf(!havePeers)('requests that a server refuses', () => {
  test('have a code, name the export and the byte, and the connection lives on', async () => {
    using files = scratch();
    const errors = ['error-pwrite=ENOSPC', 'error-pwrite-rate=100%', 'error-pread-rate=100%'];
    const switched = [`error-pread-file=${files.path('on')}`];
    const args = ['--filter=error', 'memory', '1M', ...errors, ...switched];
    await using server = await nbdkit(files.path('nbd'), ...args);
    await using file = await backend.open(server.uri, 'write');
    await expect(file.write(hostOffset(4096), new Uint8Array(512))).rejects.toMatchObject({
      code: 'STORAGE_NO_SPACE',
      details: { file: file.label, offset: 4096, errno: 'ENOSPC' },
    });
    writeFileSync(files.path('on'), '');
    await expect(readAt(file, 512, 512)).rejects.toMatchObject({
      code: 'STORAGE_IO',
      details: { file: file.label, offset: 512, errno: 'EIO' },
    });
    await expect(readAt(file, 512, 512)).rejects.toThrow(`${server.uri}: read at byte 512 failed`);
    await file.writeZeroes({ offset: hostOffset(0), length: byteLength(4096) });
    await file.flush('test: the connection lives');
  });

  test('a failed flush is final', async () => {
    using files = scratch();
    const script = [
      'get_size=echo 1048576',
      'pread=dd if=/dev/zero count=$3 iflag=count_bytes 2>/dev/null',
      'can_write=exit 0',
      'pwrite=cat >/dev/null',
      'can_flush=exit 0',
      `flush=test -e ${files.path('good')} || { echo EIO lost >&2; exit 1; }`,
    ];
    await using server = await nbdkit(files.path('nbd'), 'eval', ...script);
    await using file = await backend.open(server.uri, 'write');
    await file.write(hostOffset(0), new Uint8Array(512));
    await expect(file.flush('W1')).rejects.toMatchObject({ code: 'STORAGE_FLUSH_FAILED' });
    writeFileSync(files.path('good'), '');
    // what was lost may be what the other one wrote
    await using other = await backend.open(server.uri, 'write');
    await expect(other.flush('W1')).rejects.toMatchObject({ code: 'STORAGE_FLUSH_FAILED' });
    await expect(file.flush('W1 again')).rejects.toMatchObject({ code: 'STORAGE_FLUSH_FAILED' });
    await expect(file.write(hostOffset(0), new Uint8Array(512))).rejects.toMatchObject({
      code: 'STORAGE_FLUSH_FAILED',
    });
    expect((await readAt(file, 0, 512)).length).toBe(512);
  });
});

describe.skipIf(!havePeers)('a lost connection', () => {
  test('fails what is under way and what comes later, and is not made anew', async () => {
    using files = scratch();
    const [socket, disk] = [files.path('nbd'), files.path('disk')];
    writeFileSync(disk, new Uint8Array(MiB));
    const lost = { code: 'STORAGE_LOST' };
    let file: Storage;
    {
      await using server = await nbdkit(socket, '--filter=delay', 'file', disk, 'delay-write=30');
      file = await backend.open(server.uri, 'write');
      const write = file.write(hostOffset(8192), pattern(4096));
      const seen = expect(write).rejects.toMatchObject({ ...lost, details: { offset: 8192 } });
      await sleep(50);
      server.process.kill('SIGKILL');
      await seen;
    }
    rmSync(socket);
    // one that would take the write, and notes what it is asked
    const log = files.path('log');
    await using again = await nbdkit(socket, '--filter=log', 'file', disk, `logfile=${log}`);
    await expect(file.write(hostOffset(0), pattern(512))).rejects.toMatchObject(lost);
    await expect(readAt(file, 0, 512)).rejects.toMatchObject(lost);
    await expect(file.flush('W1')).rejects.toMatchObject({ code: 'STORAGE_FLUSH_FAILED' });
    await file[Symbol.asyncDispose]();
    expect(readFileSync(log, 'utf8')).not.toMatch(/ (Connect|Read|Write|Flush) /);
    expect(readFileSync(disk).every((byte) => byte === 0)).toBe(true);
    await using opened = await backend.open(again.uri, 'write');
    await opened.write(hostOffset(0), pattern(512));
    expect(readFileSync(log, 'utf8')).toMatch(/ Write /);
  });

  test('is noticed by who opens the export anew, also when nobody has asked for anything', async () => {
    using files = scratch();
    const socket = files.path('nbd');
    let file: Storage;
    {
      await using server = await nbdkit(socket, 'memory', '1M');
      file = await backend.open(server.uri, 'read');
      server.process.kill('SIGKILL');
    }
    rmSync(socket);
    await using again = await nbdkit(socket, 'memory', '1M');
    await using opened = await backend.open(again.uri, 'write');
    await opened.write(hostOffset(0), pattern(512));
    await expect(readAt(file, 0, 512)).rejects.toMatchObject({ code: 'STORAGE_LOST' });
    await file[Symbol.asyncDispose]();
    expect(await readAt(opened, 0, 512)).toEqual(pattern(512));
  });

  test('no server: not there, or not listening', async () => {
    using files = scratch();
    const uri = `nbd+unix:///?socket=${files.path('nbd')}`;
    await expect(backend.open(uri, 'read')).rejects.toMatchObject({ code: 'STORAGE_NOT_FOUND' });
    writeFileSync(files.path('nbd'), '');
    await expect(backend.open(uri, 'read')).rejects.toMatchObject({ code: 'STORAGE_LOST' });
  });
});

describe.skipIf(!havePeers)('durability', () => {
  test('a server with flushes gets one for each, and no FUA', async () => {
    using files = scratch();
    const log = files.path('log');
    const args = ['--filter=log', 'memory', '1M', `logfile=${log}`];
    await using server = await nbdkit(files.path('nbd'), ...args);
    await using file = await backend.open(server.uri, 'write');
    await file.write(hostOffset(0), pattern(4096));
    await file.flush('W1');
    const said = readFileSync(log, 'utf8');
    expect(said.match(/ Flush /g)).toHaveLength(1);
    expect(said).toMatch(/Write .*fua=0/);
  });

  test('one without gets FUA with every change', async () => {
    using files = scratch();
    const log = files.path('log');
    const script = [
      'get_size=echo 1048576',
      'pread=dd if=/dev/zero count=$3 iflag=count_bytes 2>/dev/null',
      'can_write=exit 0',
      'pwrite=cat >/dev/null',
      'can_zero=exit 0',
      'zero=exit 0',
      'can_flush=exit 3',
      'can_fua=echo native',
    ];
    const args = ['--filter=log', 'eval', ...script, `logfile=${log}`];
    await using server = await nbdkit(files.path('nbd'), ...args);
    await using file = await backend.open(server.uri, 'write');
    await file.write(hostOffset(0), pattern(4096));
    await file.writeZeroes({ offset: hostOffset(0), length: byteLength(4096) });
    await file.flush('W1');
    const said = readFileSync(log, 'utf8');
    expect(said).toMatch(/Write .*fua=1/);
    expect(said).toMatch(/Zero .*fua=1/);
    expect(said).not.toMatch(/fua=0| Flush /);
  });

  test('one that can do neither is read, and not written', async () => {
    using files = scratch();
    const script = ['get_size=echo 4096', 'pread=head -c $3 /dev/zero', 'can_write=exit 0'];
    const never = ['pwrite=cat >/dev/null', 'can_flush=exit 3', 'can_fua=echo none'];
    await using server = await nbdkit(files.path('nbd'), 'eval', ...script, ...never);
    await using file = await backend.open(server.uri, 'read');
    expect(await readAt(file, 0, 10)).toEqual(new Uint8Array(10));
    await expect(backend.open(server.uri, 'write')).rejects.toMatchObject({
      code: 'STORAGE_UNSUPPORTED',
      message: expect.stringContaining('durable'),
    });
  });
});

describe.skipIf(!havePeers)('what an export is', () => {
  test('one for reading only cannot be opened for writing', async () => {
    using files = scratch();
    await using server = await nbdkit(files.path('nbd'), '-r', 'memory', '1M');
    await expect(backend.open(server.uri, 'write')).rejects.toMatchObject({
      code: 'STORAGE_ACCESS',
    });
  });

  test('a last block that cannot be reached whole is refused, not read as zeros', async () => {
    using files = scratch();
    const policy = ['blocksize-minimum=512', 'blocksize-error-policy=error'];
    const args = ['--filter=blocksize-policy', 'memory', '1000', ...policy];
    await using server = await nbdkit(files.path('nbd'), ...args);
    await expect(backend.open(server.uri, 'read')).rejects.toMatchObject({
      code: 'STORAGE_UNSUPPORTED',
      message: expect.stringContaining('1000 bytes, in blocks of 512'),
    });
  });

  test('identities: of the server and the name, however both are spelt', async () => {
    using files = scratch();
    const [socket, folder] = [files.path('nbd'), files.path('folder')];
    await run('mkdir', folder);
    for (const name of ['one', 'two']) writeFileSync(`${folder}/${name}`, new Uint8Array(512));
    symlinkSync(socket, files.path('link'));
    await using _server = await nbdkit(socket, 'file', `dir=${folder}`);
    const of = async (name: string, at = socket) =>
      (await backend.facts(`nbd+unix:///${name}?socket=${at}`)).identity;
    expect(await of('%6fne', files.path('link'))).toEqual(await of('one'));
    expect((await of('two')).device).toBe((await of('one')).device);
    expect((await of('two')).inode).not.toBe((await of('one')).inode);
    await using _other = await nbdkit(files.path('other'), 'file', `dir=${folder}`);
    expect((await of('one', files.path('other'))).device).not.toBe((await of('one')).device);
    // no device of this machine has so large a number
    expect(BigInt((await of('one')).device)).toBeGreaterThan(2n ** 64n);
  });

  test('nbds: TLS or nothing', async () => {
    using files = scratch();
    const keys = files.path('keys.psk');
    writeFileSync(keys, `guest:${'ab'.repeat(32)}\n`);
    const tls = ['--tls=require', `--tls-psk=${keys}`];
    await using server = await nbdkit(files.path('nbd'), ...tls, 'memory', '1M');
    const uri = server.uri.replace('nbd+', 'nbds+');
    const psk = { identity: 'guest', key: Buffer.from('ab'.repeat(32), 'hex') };
    await using file = await nbdBackend({ tls: { psk } }).open(uri, 'write');
    await file.write(hostOffset(5), pattern(5));
    expect(await readAt(file, 5, 5)).toEqual(pattern(5));
    // and nothing of TLS where the URI wants none
    await using plain = await nbdkit(files.path('plain'), 'memory', '1M');
    expect((await nbdBackend({ tls: { psk } }).facts(plain.uri)).length).toBe(MiB);
    for (const wrong of [uri, server.uri])
      await expect(backend.open(wrong, 'read')).rejects.toMatchObject({ code: 'STORAGE_ACCESS' });
  });
});

describe.skipIf(!havePeers)('other peers', () => {
  test('nbdkit with cow: what we write is seen through the server, and stays out of the file', async () => {
    using files = scratch();
    const disk = files.path('disk');
    writeFileSync(disk, pattern(MiB));
    await using server = await nbdkit(files.path('nbd'), '--filter=cow', 'file', disk);
    const expected = pattern(MiB);
    expected.fill(7, 1000, 71_000).fill(0, 200_001, 300_001);
    {
      await using file = await backend.open(server.uri, 'write');
      await file.write(hostOffset(1000), new Uint8Array(70_000).fill(7));
      await file.writeZeroes({ offset: hostOffset(200_001), length: byteLength(100_000) });
      await file.flush('W1');
    }
    await run('qemu-img', 'convert', '-f', 'raw', '-O', 'raw', server.uri, files.path('out'));
    expect(readFileSync(files.path('out')).equals(expected)).toBe(true);
    expect(readFileSync(disk).equals(pattern(MiB))).toBe(true);
  });

  test('a server that takes one client: all who open its export share the connection, and blocks', async () => {
    using files = scratch();
    const [socket, disk] = [files.path('nbd'), files.path('disk')];
    writeFileSync(disk, new Uint8Array(MiB));
    await using _server = await foreignServer(
      { path: socket },
      'qemu-nbd',
      '-t',
      '-k',
      socket,
      '-f',
      'raw',
      disk,
    );
    const uri = `nbd+unix:///?socket=${socket}`;
    const all = await Promise.all(Array.from({ length: 8 }, () => backend.open(uri, 'write')));
    expect((await backend.facts(uri)).length).toBe(MiB);
    await Promise.all(
      all.map((file, index) =>
        file.write(hostOffset(index * 100), new Uint8Array(100).fill(index)),
      ),
    );
    for (const file of all) await file[Symbol.asyncDispose]();
    await using again = await backend.open(uri, 'read');
    const expected = Uint8Array.from({ length: 800 }, (_, at) => Math.floor(at / 100));
    expect(await readAt(again, 0, 800)).toEqual(expected);
  });

  test('qemu-nbd over a qcow2: changes reach the image', async () => {
    using files = scratch();
    const [socket, image] = [files.path('nbd'), files.path('disk.qcow2')];
    await run('qemu-img', 'create', '-q', '-f', 'qcow2', image, '8M');
    const expected = new Uint8Array(8 * MiB);
    {
      const args = ['-t', '-k', socket, '-f', 'qcow2', '-x', 'disk', '--discard=unmap', image];
      await using _server = await foreignServer({ path: socket }, 'qemu-nbd', ...args);
      await using file = await backend.open(`nbd+unix:///disk?socket=${socket}`, 'write');
      expect(file.supports).toEqual({ discard: true, resize: false });
      await file.write(hostOffset(12_345), pattern(5 * MiB));
      expected.set(pattern(5 * MiB), 12_345);
      await file.discard({ offset: hostOffset(MiB), length: byteLength(9 * MiB) });
      expected.fill(0, MiB);
      await file.flush('W1');
      assertSameBytes(await readAt(file, 0, 8 * MiB), expected, 'the export');
    }
    await run('qemu-img', 'convert', '-f', 'qcow2', '-O', 'raw', image, files.path('out'));
    expect(readFileSync(files.path('out')).equals(expected)).toBe(true);
  });
});
