import { once } from 'node:events';
import { existsSync, mkdirSync, truncateSync } from 'node:fs';
import { createServer } from 'node:net';
import { connectNbd } from '@downfold/nbd';
import { connectQmp } from '@downfold/qmp';
import { describe, expect, it } from 'vitest';
import { Bench, contentOf, MIB, makeChain, Served, type Started } from './support.ts';

const LIMIT = ['--stop-timeout', '1'];
const COMMIT = { 'job-id': 'j', device: 'top', 'top-node': 'mid', 'base-node': 'base' };

/** A server that holds base, with room to grow in. */
async function holder(bench: Bench): Promise<Started> {
  truncateSync(bench.file('base.qcow2'), 32 * MIB);
  return bench.serve(
    ...['--blockdev', 'raw,node-name=far,file.driver=file,file.filename=base.qcow2'],
    ...['--nbd-server', 'addr.type=unix,addr.path=far/nbd.sock'],
    ...['--export', 'nbd,id=e,node-name=far,name=,writable=on'],
  );
}

const OPTIONS: readonly string[] = [
  '--blockdev',
  'nbd,node-name=far,server.type=unix,server.path=far/nbd.sock',
  ...['--blockdev', 'qcow2,node-name=base,file=far'],
  ...['mid', 'top'].flatMap((name, index) => [
    '--blockdev',
    `qcow2,node-name=${name},file.driver=file,file.filename=${name}.qcow2,backing=${['base', 'mid'][index]}`,
  ]),
  ...['--nbd-server', 'addr.type=unix,addr.path=run/nbd.sock'],
  ...['--export', 'nbd,id=e,node-name=top,name=,writable=on'],
  ...['--chardev', 'socket,id=c,path=run/qmp.sock,server=on,wait=off', '--monitor', 'c'],
];

async function serve(bench: Bench, ...more: readonly string[]): Promise<Served> {
  const server = await bench.serve(...OPTIONS, ...more);
  return new Served(server, await connectQmp(bench.file('run/qmp.sock')));
}

const clientOf = (bench: Bench): ReturnType<typeof connectNbd> =>
  connectNbd({ server: { path: bench.file('run/nbd.sock') }, name: '' });

describe('a server that holds an image and is silent', () => {
  it.each(['SIGTERM', 'quit'] as const)(
    'does not hold up %s for ever: what was flushed is there, and the job goes on',
    async (how) => {
      await using bench = new Bench();
      await makeChain(bench);
      const far = await holder(bench);
      const served = await serve(bench, ...LIMIT);
      const expected = contentOf();
      {
        await using client = await clientOf(bench);
        await client.write(
          9 * MIB,
          expected.fill('flushed', 9 * MIB, 10 * MIB).subarray(9 * MIB, 10 * MIB),
        );
        await client.flush();
        await served.execute('block-commit', { ...COMMIT, speed: MIB });
        await expect.poll(() => existsSync(bench.file('top.qcow2.downfold'))).toBe(true);
        far.kill('SIGSTOP');
        client.read(0, Buffer.alloc(MIB)).catch(() => undefined);
        if (how === 'quit') await served.execute('quit');
        else served.server.kill('SIGTERM');
        const { code, stderr } = await served.server.ended;
        expect([code, stderr]).toEqual([
          1,
          expect.stringMatching(
            /error: stopping took more than 1 s, and was broken off: .*--resume/,
          ),
        ]);
      }
      far.kill('SIGCONT');
      const again = await serve(bench, '--resume');
      await again.server.said(/job 'resume-.*': completed/);
      expect(existsSync(bench.file('top.qcow2.downfold'))).toBe(false);
      await using client = await clientOf(bench);
      const disk = Buffer.alloc(16 * MIB);
      await client.read(0, disk);
      expect(disk.equals(expected)).toBe(true);
      expect((await again.stop()).code).toBe(0);
    },
  );

  it('does not hold up a start that is to end', async () => {
    await using bench = new Bench();
    await makeChain(bench);
    mkdirSync(bench.file('far'));
    const asked = Promise.withResolvers<void>();
    const silent = createServer(() => asked.resolve()).listen(bench.file('far/nbd.sock'));
    await once(silent, 'listening');
    const server = bench.start([...OPTIONS, ...LIMIT]);
    await asked.promise;
    server.kill('SIGTERM');
    expect(await server.ended).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/broken off/),
    });
    silent.close();
  });
});
