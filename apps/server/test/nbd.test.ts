import { readFileSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { connectNbd } from '@downfold/nbd';
import { describe, expect, it } from 'vitest';
import { Bench, contentOf, haveTools, MIB, makeChain } from './support.ts';

/** Another disk of 16 MiB: random, with holes. */
function anotherDisk(): Buffer {
  const disk = Buffer.alloc(16 * MIB);
  for (let at = 0; at < disk.length; at += 3 * MIB)
    for (let word = 0; word < MIB; word += 4)
      disk.writeUInt32LE((at + word * 2654435761) >>> 0, at + word);
  return disk;
}

describe.skipIf(!haveTools)('what foreign clients see', () => {
  it('nbdinfo: sizes, abilities, contexts', async () => {
    await using bench = new Bench();
    await makeChain(bench);
    await bench.disk('top.qcow2');
    const { exports } = JSON.parse(await bench.must('nbdinfo', '--json', bench.uri));
    expect(exports).toHaveLength(1);
    expect(exports[0]).toMatchObject({
      'export-name': '',
      contexts: ['base:allocation', 'qemu:allocation-depth'],
      'export-size': 16 * MIB,
      is_read_only: false,
      can_cache: true,
      can_fast_zero: true,
      can_flush: true,
      can_fua: true,
      can_multi_conn: true,
      can_trim: true,
      can_zero: true,
      block_size_minimum: 1,
      block_size_preferred: 4096,
      block_size_maximum: 32 * MIB,
    });
  });

  it('nbdinfo --map: allocation, and the depth at which each layer lies', async () => {
    await using bench = new Bench();
    await makeChain(bench);
    await bench.disk('top.qcow2');
    const map = JSON.parse(await bench.must('nbdinfo', '--map', '--json', bench.uri));
    expect(
      map.map(({ offset, length, type }: Record<string, number>) => [offset, length, type]),
    ).toEqual([
      [0, 7 * MIB, 0],
      [7 * MIB, 9 * MIB, 3],
    ]);
    const depths = JSON.parse(
      await bench.must('nbdinfo', '--map=qemu:allocation-depth', '--json', bench.uri),
    );
    expect(depths.map(({ type }: { readonly type: number }) => type)).toEqual([
      3, 2, 1, 3, 2, 1, 0,
    ]);
  });

  it('nbdcopy and qemu-img convert read the disk; qemu-img compare and map agree with the chain', async () => {
    await using bench = new Bench();
    await makeChain(bench);
    const served = await bench.disk('top.qcow2');
    await bench.must('nbdcopy', '--connections=4', '--requests=16', bench.uri, 'copy.raw');
    expect(readFileSync(bench.file('copy.raw')).equals(contentOf())).toBe(true);
    await bench.must('qemu-img', 'convert', '-f', 'raw', '-O', 'raw', bench.uri, 'converted.raw');
    expect(readFileSync(bench.file('converted.raw')).equals(contentOf())).toBe(true);
    // -U: the server holds the locks
    await bench.must(
      'qemu-img',
      'compare',
      '-U',
      '-f',
      'raw',
      '-F',
      'qcow2',
      bench.uri,
      'top.qcow2',
    );
    const over = JSON.parse(
      await bench.must('qemu-img', 'map', '--output=json', '-f', 'raw', bench.uri),
    );
    expect(
      over.map(({ start, length, data }: Record<string, unknown>) => [start, length, data]),
    ).toEqual([
      [0, 7 * MIB, true],
      [7 * MIB, 9 * MIB, false],
    ]);
    expect((await served.stop()).code).toBe(0);
  });

  it('nbdcopy writes over four connections; after SIGTERM the chain holds it, and is clean', async () => {
    await using bench = new Bench();
    await makeChain(bench);
    const served = await bench.disk('top.qcow2');
    writeFileSync(bench.file('new.raw'), anotherDisk());
    await bench.must(
      'nbdcopy',
      '--connections=4',
      '--requests=16',
      '--flush',
      'new.raw',
      bench.uri,
    );
    await bench.must('nbdcopy', '--connections=4', bench.uri, 'back.raw');
    expect(readFileSync(bench.file('back.raw')).equals(anotherDisk())).toBe(true);
    expect((await served.stop()).code).toBe(0);
    await bench.must('qemu-img', 'compare', '-f', 'raw', '-F', 'qcow2', 'new.raw', 'top.qcow2');
    await bench.must('qemu-img', 'check', 'top.qcow2');
    // layers below are as they were
    await bench.must('qemu-img', 'convert', '-O', 'raw', 'mid.qcow2', 'mid.raw');
    const { base = [], mid = [] } = { base: [0, 1, 2, 3], mid: [1, 2, 4, 5] };
    expect(readFileSync(bench.file('mid.raw')).equals(contentOf({ base, mid }))).toBe(true);
  });

  it('qemu-io: writes, FUA, zeros, discards, flushes', async () => {
    await using bench = new Bench();
    await makeChain(bench);
    const served = await bench.disk('top.qcow2');
    const commands = [
      'write -P 7 100k 300k',
      'write -f -P 8 1M 64k',
      'write -z 2M 1M',
      'write -z -u 3M 64k',
      'discard 4M 1M',
      'flush',
      'read -P 7 100k 300k',
      'read -P 8 1M 64k',
      'read -P 0 2M 1M',
      'read -P 0 3M 64k',
      // a discard of the short form gives space back, and what lies below does not show
      'read -P 0 4M 1M',
    ];
    const said = await bench.must(
      'qemu-io',
      '-f',
      'raw',
      '-d',
      'unmap',
      ...commands.flatMap((command) => ['-c', command]),
      bench.uri,
    );
    expect(said).not.toMatch(/verification failed|error/i);
    await served.stop();
    await bench.must('qemu-img', 'check', 'top.qcow2');
    await bench.must(
      'qemu-io',
      '-r',
      '-c',
      'read -P 0 4M 1M',
      '-c',
      'read -P 7 100k 300k',
      'top.qcow2',
    );
  });
});

describe('an export', () => {
  it('flushed is durable for a process that is killed', async () => {
    await using bench = new Bench();
    await makeChain(bench);
    const served = await bench.disk('top.qcow2');
    {
      await using client = await connectNbd({
        server: { path: bench.file('run/nbd.sock') },
        name: '',
      });
      await client.write(9 * MIB, new Uint8Array(MIB).fill(5), { fua: true });
      await client.write(10 * MIB, new Uint8Array(MIB).fill(6));
      await client.flush();
      await served.kill();
    }
    await bench.disk('top.qcow2');
    await using client = await connectNbd({
      server: { path: bench.file('run/nbd.sock') },
      name: '',
    });
    const back = new Uint8Array(2 * MIB);
    await client.read(9 * MIB, back);
    expect(back[0]).toBe(5);
    expect(back[MIB - 1]).toBe(5);
    expect(back[MIB]).toBe(6);
    expect(back[2 * MIB - 1]).toBe(6);
  });

  it('for reading refuses changes, and leaves a damaged image to be read; a writable one is refused', async () => {
    await using bench = new Bench();
    await makeChain(bench);
    damage(bench);
    const refused = bench.start([
      'top.qcow2',
      '--nbd',
      'unix:run/nbd.sock',
      '--qmp',
      'unix:run/qmp.sock',
    ]);
    const { code, stderr } = await refused.ended;
    expect(code).toBe(1);
    expect(stderr).toMatch(/top\.qcow2: \d+ errors in its metadata; it is not written to/);
    await bench.disk('top.qcow2', '--read-only');
    await using client = await connectNbd({
      server: { path: bench.file('run/nbd.sock') },
      name: '',
    });
    expect(client.info.readOnly).toBe(true);
  });

  it('who asks for a terabyte to be read ahead, and hangs up, is forgotten: the server ends at once', async () => {
    await using bench = new Bench();
    const terabyte = 1024 ** 4;
    await makeChain(bench, { huge: [0] }, terabyte / MIB);
    const served = await bench.disk('huge.qcow2');
    const client = await connectNbd({
      server: { path: bench.file('run/nbd.sock') },
      name: '',
    });
    const asked = Array.from({ length: 16 }, () => client.cache(0, terabyte));
    await client.close({ signal: AbortSignal.timeout(200) }).catch(() => undefined);
    await Promise.allSettled(asked);
    const late = sleep(4000).then(() => 'goes on');
    expect(await Promise.race([served.stop(), late])).toMatchObject({ code: 0 });
  });

  it('without discard=unmap keeps what is discarded', async () => {
    await using bench = new Bench();
    await makeChain(bench);
    const served = await bench.disk('top.qcow2', '--read-only');
    await served.execute('block-export-del', { id: 'disk', mode: 'hard' });
    expect(await served.until('BLOCK_EXPORT_DELETED')).toEqual(['BLOCK_EXPORT_DELETED']);
    await served.stop();

    const server = await bench.serve(
      '--blockdev',
      'qcow2,node-name=top,file.driver=file,file.filename=top.qcow2',
      '--nbd-server',
      `addr.type=unix,addr.path=${bench.file('plain.sock')}`,
      '--export',
      'nbd,id=e0,node-name=top,writable=on',
    );
    await using client = await connectNbd({
      server: { path: bench.file('plain.sock') },
      name: 'top',
    });
    await client.trim(2 * MIB, MIB);
    const back = Buffer.alloc(MIB);
    await client.read(2 * MIB, back);
    expect(back.equals(contentOf().subarray(2 * MIB, 3 * MIB))).toBe(true);
    server.kill('SIGTERM');
    expect((await server.ended).code).toBe(0);
  });
});

/** Two guest clusters of top on one host cluster: a write to one would change the other. */
function damage(bench: Bench): void {
  const path = bench.file('top.qcow2');
  const bytes = readFileSync(path);
  const l1 = Number(bytes.readBigUInt64BE(40));
  const l2 = Number(bytes.readBigUInt64BE(l1) & 0x00ff_ffff_ffff_fe00n);
  const [first, second] = [(2 * MIB) / 65_536, (2 * MIB) / 65_536 + 1];
  bytes.copy(bytes, l2 + second * 8, l2 + first * 8, l2 + first * 8 + 8);
  writeFileSync(path, bytes);
}
