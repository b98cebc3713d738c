import { readFileSync, truncateSync } from 'node:fs';
import { httpServer } from '@downfold/compliance';
import { connectNbd } from '@downfold/nbd';
import { connectQmp } from '@downfold/qmp';
import { describe, expect, it } from 'vitest';
import { Bench, contentOf, haveAll, haveTools, MIB, makeChain, Served } from './support.ts';

const CAN: boolean = haveTools && haveAll('nbdkit');

/** Serves `top` over `mid` over `base`, whose bytes lie wherever these options say. */
async function serve(bench: Bench, remote: string): Promise<Served> {
  const local = ['mid', 'top'].flatMap((name, index) => [
    '--blockdev',
    `qcow2,node-name=${name},file.driver=file,file.filename=${name}.qcow2,backing=${['base', 'mid'][index]}`,
  ]);
  const server = await bench.serve(
    ...['--blockdev', remote, '--blockdev', 'qcow2,node-name=base,file=remote', ...local],
    ...['--nbd-server', 'addr.type=unix,addr.path=run/nbd.sock'],
    ...['--export', 'nbd,id=e,node-name=top,name=,writable=on'],
    ...['--chardev', 'socket,id=c,path=run/qmp.sock,server=on,wait=off', '--monitor', 'c'],
  );
  return new Served(server, await connectQmp(bench.file('run/qmp.sock')));
}

async function diskOf(bench: Bench): Promise<Buffer> {
  await using client = await connectNbd({ server: { path: bench.file('run/nbd.sock') }, name: '' });
  const disk = Buffer.alloc(client.info.size);
  for (let at = 0; at < disk.length; at += MIB) await client.read(at, disk.subarray(at, at + MIB));
  return disk;
}

/** An nbdkit that holds base, with room to grow in. */
async function holdBase(bench: Bench): Promise<void> {
  truncateSync(bench.file('base.qcow2'), 32 * MIB);
  bench.program('nbdkit', '-f', '-U', bench.file('far.sock'), 'file', bench.file('base.qcow2'));
  await expect
    .poll(() => bench.run('nbdinfo', `nbd+unix:///?socket=${bench.file('far.sock')}`), {
      timeout: 10_000,
    })
    .toMatchObject({ code: 0 });
}

const remoteNbd = 'nbd,node-name=remote,server.type=unix,server.path=far.sock';
const COMMIT = { 'job-id': 'j', device: 'top', 'top-node': 'mid', 'base-node': 'base' };

describe.skipIf(!CAN)('a base behind an NBD server', () => {
  it('is read, receives a commit, and what received it is right by QEMU', async () => {
    await using bench = new Bench();
    await makeChain(bench);
    await holdBase(bench);
    const served = await serve(bench, remoteNbd);
    await served.server.said(/nbd\+unix:.*far\.sock: .*there are no locks/);
    expect((await diskOf(bench)).equals(contentOf())).toBe(true);
    const nodes = await served.execute<{ 'node-name': string }[]>('query-named-block-nodes');
    expect(nodes.find((one) => one['node-name'] === 'remote')).toMatchObject({ drv: 'nbd' });
    await served.execute('block-commit', COMMIT);
    await served.until('null');
    await served.server.said(/job 'j': completed/);
    expect((await diskOf(bench)).equals(contentOf())).toBe(true);
    expect((await served.stop()).code).toBe(0);
    const info = JSON.parse(
      await bench.must('qemu-img', 'info', '--output=json', '-U', 'top.qcow2'),
    );
    const uri = `nbd+unix:///?socket=${bench.file('far.sock')}`;
    expect(info).toMatchObject({ 'backing-filename': uri, 'backing-filename-format': 'qcow2' });
    // QEMU follows the name that was written
    await bench.must('qemu-img', 'convert', '-O', 'raw', 'top.qcow2', 'seen.raw');
    expect(readFileSync(bench.file('seen.raw')).equals(contentOf())).toBe(true);
    await bench.must('qemu-img', 'check', '-f', 'qcow2', uri);
  });

  it('of a job that is killed is gone on with', async () => {
    await using bench = new Bench();
    await makeChain(bench);
    await holdBase(bench);
    const served = await serve(bench, remoteNbd);
    await served.execute('block-commit', { ...COMMIT, speed: MIB });
    await expect
      .poll(() => served.execute('query-jobs'))
      .toMatchObject([{ 'current-progress': expect.toSatisfy((done) => done > 0) }]);
    await served.kill();
    const again = await serve(bench, remoteNbd);
    expect((await diskOf(bench)).equals(contentOf())).toBe(true);
    await again.execute('x-journal-resume', { image: 'top', 'job-id': 'j' });
    await again.until('null');
    await again.server.said(/job 'j': completed/);
    expect((await diskOf(bench)).equals(contentOf())).toBe(true);
    await again.stop();
  });

  it('an image that names a server by itself does not reach it', async () => {
    await using bench = new Bench();
    await makeChain(bench);
    await holdBase(bench);
    const uri = `nbd+unix:///?socket=${bench.file('far.sock')}`;
    await bench.must(
      'qemu-img',
      'create',
      '-q',
      '-f',
      'qcow2',
      '-u',
      '-b',
      uri,
      '-F',
      'qcow2',
      'evil.qcow2',
      '16M',
    );
    const { code, stderr } = await bench.start(['evil.qcow2', '--nbd', 'unix:run/nbd.sock']).ended;
    expect(code).toBe(1);
    expect(stderr).toMatch(/names a protocol; only plain files are opened/);
  });
});

describe.skipIf(!CAN)('a base behind a web server', () => {
  it('is read, and pulled up; it cannot receive anything', async () => {
    await using bench = new Bench();
    await makeChain(bench);
    await using web = await httpServer(bench.file('base.qcow2'));
    const served = await serve(bench, `http,node-name=remote,url=${web.url}`);
    expect((await diskOf(bench)).equals(contentOf())).toBe(true);
    await served.execute('block-commit', COMMIT);
    expect(await served.until('null')).toContain('BLOCK_JOB_COMPLETED with error');
    await served.server.said(/behind HTTP can be read, and nothing else/);
    await served.execute('block-stream', { 'job-id': 's', device: 'top' });
    await served.until('null');
    await served.server.said(/job 's': completed/);
    expect((await diskOf(bench)).equals(contentOf())).toBe(true);
    await served.stop();
    await bench.must('qemu-img', 'check', 'top.qcow2');
    await bench.must('qemu-img', 'convert', '-O', 'raw', 'top.qcow2', 'seen.raw');
    expect(readFileSync(bench.file('seen.raw')).equals(contentOf())).toBe(true);
    const wrong = await bench.start([
      ...['--blockdev', `https,node-name=n,url=${web.url}`],
      ...['--qmp', 'unix:run/other.sock'],
    ]).ended;
    expect(wrong.stderr).toMatch(/is no https URL/);
  });
});
