import { spawn, spawnSync } from 'node:child_process';
import { truncateSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { type Bench, bench, haveQemu } from './support.ts';

const haveServers = ['nbdkit', 'nbdinfo'].every(
  (tool) => spawnSync(tool, ['--version'], { stdio: 'ignore' }).status === 0,
);
if (!haveServers && process.env['DOWNFOLD_REQUIRE_QEMU'] === '1')
  throw new Error('DOWNFOLD_REQUIRE_QEMU=1, but there is no nbdkit or nbdinfo');

/** base behind nbdkit, with room to grow in; mid names it by its URI, and disk names mid. */
async function chain(work: Bench): Promise<AsyncDisposable & { readonly uri: string }> {
  const uri = `nbd+unix:///?socket=${work.file('far.sock')}`;
  work.must('qemu-img', 'create', '-q', '-f', 'qcow2', 'base.qcow2', '16M');
  work.must('qemu-io', '-c', 'write -P 1 0 3M', 'base.qcow2');
  truncateSync(work.file('base.qcow2'), 32 << 20);
  const args = ['-f', '-U', work.file('far.sock'), 'file', work.file('base.qcow2')];
  const server = spawn('nbdkit', args, { stdio: 'ignore' });
  const ended = new Promise((done) => server.on('close', done));
  await expect.poll(() => work.run('nbdinfo', uri).code, { timeout: 10_000 }).toBe(0);
  const overlay = ['create', '-q', '-f', 'qcow2', '-F', 'qcow2'];
  work.must('qemu-img', ...overlay, '-b', uri, 'mid.qcow2', '16M');
  work.must('qemu-io', '-c', 'write -P 2 1M 2M', '-c', 'write -P 3 8M 100k', 'mid.qcow2');
  work.must('qemu-img', ...overlay, '-b', 'mid.qcow2', 'disk.qcow2', '16M');
  work.must('qemu-io', '-c', 'write -P 4 2M 64k', 'disk.qcow2');
  return {
    uri,
    [Symbol.asyncDispose]: async () => {
      server.kill();
      await ended;
    },
  };
}

describe.skipIf(!(haveQemu && haveServers))('an image behind an NBD server', () => {
  it('is looked at as qemu-img looks at it', async () => {
    using work = bench();
    await using server = await chain(work);
    const { uri } = server;
    expect(work.downfold('check', uri).code).toBe(0);
    const map = ['map', '-f', 'qcow2', '--output=json', uri];
    // where in the file data lies is the same for both; what the server knows of holes is not asked
    const run = (text: string): unknown[] =>
      (JSON.parse(text) as { start: number; length: number; offset?: number }[])
        .filter(({ offset }) => offset !== undefined)
        .map(({ start, length, offset }) => ({ start, length, offset }));
    expect(run(work.downfold(...map).stdout)).toEqual(run(work.must('qemu-img', ...map)));
    expect(work.json('info', uri)).toMatchObject({ filename: uri, 'virtual-size': 16 << 20 });
  });

  it('is reached because the user names it, and not because an image does', async () => {
    using work = bench();
    await using server = await chain(work);
    const refused = work.downfold('info', '--backing-chain', 'disk.qcow2');
    expect(refused.code).toBe(1);
    expect(refused.stderr).toMatch(/names a protocol/);
    const allowed = ['info', '--backing-chain', '--allow', server.uri, 'disk.qcow2'];
    expect(work.downfold(...allowed).code).toBe(0);
    // another export of the same server is another name
    const other = server.uri.replace('///', '///other');
    expect(work.downfold('info', '--backing-chain', '--allow', other, 'disk.qcow2').code).toBe(1);
  });

  it('receives a commit', async () => {
    using work = bench();
    await using server = await chain(work);
    work.must('qemu-img', 'convert', '-O', 'raw', 'disk.qcow2', 'before.raw');
    const args = ['-b', server.uri, '--top', 'mid.qcow2', 'disk.qcow2'];
    expect(work.downfold('commit', '--dry-run', ...args).stdout).toMatch(
      /lies behind a server: no locks/,
    );
    const { code, stderr } = work.downfold('commit', '--verify', ...args);
    expect(stderr).toBe('');
    expect(code).toBe(0);
    work.must('qemu-img', 'check', '-q', '-f', 'qcow2', server.uri);
    work.must('qemu-img', 'compare', '-f', 'qcow2', '-F', 'raw', 'disk.qcow2', 'before.raw');
    const [disk, base] = JSON.parse(
      work.must('qemu-img', 'info', '--backing-chain', '--output=json', 'disk.qcow2'),
    );
    expect(disk['backing-filename']).toBe(server.uri);
    expect(base['backing-filename']).toBeUndefined();
  });
});
