import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { connectQmp } from '@downfold/qmp';
import { describe, expect, it } from 'vitest';
import { Bench, BIN, haveTools, makeChain } from './support.ts';

describe('starting', () => {
  it('says what is wrong in one line, and leaves nothing behind', async () => {
    await using bench = new Bench();
    await makeChain(bench);
    const failing = async (...args: string[]): Promise<string> => {
      const { code, stderr } = await bench.start(args).ended;
      expect(code).toBe(1);
      expect(stderr.trimEnd().split('\n')).toHaveLength(1);
      return stderr;
    };
    expect(await failing('top.qcow2')).toMatch(/nobody could reach it/);
    expect(await failing('top.qcow2', '--bogus')).toMatch(/unknown option '--bogus'/);
    expect(await failing('none.qcow2', '--nbd', 'unix:nbd.sock')).toMatch(/no such file/);
    expect(await failing('top.qcow2', '--format', 'vmdk', '--nbd', 'unix:nbd.sock')).toMatch(
      /Unknown image format 'vmdk'/,
    );
    expect(await failing('top.qcow2', '--nbd', '0.0.0.0:0', '--pidfile', 'pid')).toMatch(
      /without TLS only loopback/,
    );
    expect(existsSync(bench.file('pid'))).toBe(false);
    expect(await failing('top\ufffd.qcow2', '--nbd', 'unix:nbd.sock')).toMatch(/must be UTF-8/);
    mkdirSync(bench.file('open'), { mode: 0o755 });
    expect(await failing('top.qcow2', '--qmp', 'unix:open/qmp.sock')).toMatch(/chmod 700/);
  });

  it('makes sockets for its user alone: 0600 in 0700', async () => {
    await using bench = new Bench();
    await makeChain(bench);
    await bench.disk('top.qcow2');
    expect(bench.mode('run')).toBe('700');
    expect(bench.mode('run/qmp.sock')).toBe('600');
    expect(bench.mode('run/nbd.sock')).toBe('600');
  });

  it('in the background returns once it serves, and leaves its id', async () => {
    await using bench = new Bench();
    await makeChain(bench);
    const args = ['top.qcow2', '--qmp', 'unix:run/qmp.sock', '--pidfile', 'pid', '--daemonize'];
    expect(await bench.start(args).ended).toMatchObject({ code: 0 });
    const pid = Number(readFileSync(bench.file('pid'), 'utf8'));
    await using qmp = await connectQmp(bench.file('run/qmp.sock'));
    process.kill(pid, 0);
    await qmp.execute('quit');
    await expect.poll(() => existsSync(bench.file('pid'))).toBe(false);
    const failed = await bench.start(['none.qcow2', ...args.slice(1)]).ended;
    expect(failed.code).toBe(1);
    expect(failed.stderr).toMatch(/no such file/);
  });

  it('opens no debugger for SIGUSR1, and goes on', async () => {
    await using bench = new Bench();
    await makeChain(bench);
    const { server, qmp } = await bench.disk('top.qcow2');
    server.kill('SIGUSR1');
    // a signal may come after what was asked later
    for (let asked = 0; asked < 20; asked++) await qmp.execute('query-version');
    await qmp.execute('quit');
    const { code, stderr } = await server.ended;
    expect([code, stderr]).toEqual([0, expect.not.stringContaining('Debugger')]);
  });

  it.skipIf(!existsSync('/dev/full'))('serves on while its log has no room', async () => {
    await using bench = new Bench();
    await makeChain(bench);
    const line = `exec '${process.execPath}' '${BIN}' top.qcow2 --qmp unix:run/qmp.sock 2>/dev/full`;
    const server = bench.program('sh', '-c', line);
    await expect.poll(() => existsSync(bench.file('run/qmp.sock')), { timeout: 20_000 }).toBe(true);
    await using qmp = await connectQmp(bench.file('run/qmp.sock'));
    expect(await qmp.execute('query-block-jobs')).toEqual([]);
    await qmp.execute('quit');
    expect(await server.ended).toMatchObject({ code: 0 });
  });

  it('takes the options of qemu-storage-daemon', async () => {
    await using bench = new Bench();
    await makeChain(bench);
    await bench.serve(
      '--blockdev',
      'file,node-name=f0,filename=base.qcow2',
      '--blockdev',
      'qcow2,node-name=base,file=f0',
      '--blockdev',
      '{"driver":"qcow2","node-name":"mid","file":{"driver":"file","filename":"mid.qcow2"},"backing":"base"}',
      '--blockdev',
      'qcow2,node-name=top,file.driver=file,file.filename=top.qcow2,backing=mid',
      '--nbd-server',
      'addr.type=unix,addr.path=run/nbd.sock',
      '--export',
      'type=nbd,id=e0,node-name=top,name=disk,writable=on',
      '--chardev',
      'socket,id=c0,path=run/qmp.sock,server=on,wait=off',
      '--monitor',
      'c0',
    );
    await using qmp = await connectQmp(bench.file('run/qmp.sock'));
    expect(await qmp.execute('query-block-exports')).toEqual([
      { id: 'e0', type: 'nbd', 'node-name': 'top', 'shutting-down': false },
    ]);
    await expect(qmp.execute('blockdev-del', { 'node-name': 'mid' })).rejects.toThrow(/busy/);
  });
});

describe.skipIf(!haveTools)('QEMU and the server exclude each other', () => {
  it('while the server serves, nobody writes any layer; readers below are let in', async () => {
    await using bench = new Bench();
    await makeChain(bench);
    await bench.disk('top.qcow2');
    for (const name of ['base', 'mid', 'top'])
      expect((await bench.run('qemu-io', '-c', 'quit', `${name}.qcow2`)).stderr).toMatch(/lock/);
    await bench.must('qemu-io', '-r', '-c', 'read 0 64k', 'mid.qcow2');
    expect((await bench.run('qemu-io', '-r', '-c', 'quit', 'top.qcow2')).stderr).toMatch(/lock/);
    const second = await bench.start(['top.qcow2', '--nbd', 'unix:run/two.sock']).ended;
    expect(second.code).toBe(1);
    expect(second.stderr).toMatch(/top\.qcow2: is in use/);
  });
});
