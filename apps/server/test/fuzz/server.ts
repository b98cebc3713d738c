import { availableParallelism } from 'node:os';
import { connectNbd, type NbdClient } from '@downfold/nbd';
import { expect } from 'vitest';
import { get, METRICS } from '../http.ts';
import { type Bench, BIN, haveTools, MIB, makeChain, type Started } from '../support.ts';

/** Bytes of each disk. */
export const SIZE: number = MIB;
/** The export of a client that behaves. */
export const GOOD = 'a name that no bit flip makes';

/** A server with a disk that anybody may write, one that nobody may, and one for a client that behaves. Its heap is kept small, so that a leak shows. */
export async function serve(bench: Bench): Promise<Started> {
  const disks = ['disk', 'locked', 'good'];
  const options: string[] = [];
  for (const disk of disks) {
    await makeChain(bench, { [`${disk}-base`]: [0], [disk]: [] }, 1);
    options.push(
      ...['--blockdev', `file,node-name=${disk}-file,filename=${disk}.qcow2`],
      ...['--blockdev', `qcow2,node-name=${disk},file=${disk}-file,discard=unmap`],
      ...[
        '--export',
        `nbd,id=${disk},node-name=${disk},allocation-depth=on,`.concat(
          disk === 'good'
            ? `name=${GOOD},writable=on`
            : `writable=${disk === 'disk' ? 'on' : 'off'}`,
        ),
      ],
    );
  }
  const server = bench.program(
    process.execPath,
    ...[
      '--max-semi-space-size=1',
      '--max-old-space-size=64',
      BIN,
      ...options,
      ...METRICS,
      '--log-level',
      'error',
    ],
    ...['--nbd-server', 'addr.type=unix,addr.path=run/nbd.sock'],
    ...['--chardev', 'socket,id=c,path=run/qmp.sock,server=on', '--monitor', 'c'],
  );
  await expect
    .poll(() => get(bench, '/healthz').catch(() => null), { timeout: 20_000 })
    .toMatchObject({ status: 200 });
  await expect.poll(() => idleThreads(bench), { timeout: 20_000 }).toBe(THREADS);
  return server;
}

/** Threads that a server starts ahead; each has files of its own, which are no leak. */
const THREADS = process.env['DOWNFOLD_NATIVE'] === '0' ? 0 : Math.min(8, availableParallelism());

async function idleThreads(bench: Bench): Promise<number> {
  const { text } = await get(bench, '/metrics');
  return Number(/^downfold_nbd_threads\{state="idle"\} (\d+)$/m.exec(text)?.[1]);
}

export const clientOf = (bench: Bench, name: string): Promise<NbdClient> =>
  connectNbd({ server: { path: bench.file('run/nbd.sock') }, name });

export async function contentsOf(bench: Bench, name: string): Promise<Buffer> {
  await using client = await clientOf(bench, name);
  const bytes = Buffer.alloc(SIZE);
  await client.read(0, bytes);
  return bytes;
}

/** Judged by programs that are not ours: the server still serves, and its images are whole. */
export async function expectServes(bench: Bench, server: Started): Promise<void> {
  expect(await get(bench, '/healthz')).toMatchObject({ status: 200 });
  expect(server.stderr).toBe('');
  if (haveTools) {
    const uri = `nbd+unix:///${encodeURIComponent(GOOD)}?socket=${bench.file('run/nbd.sock')}`;
    expect(JSON.parse(await bench.must('nbdinfo', '--json', uri))).toMatchObject({
      exports: [{ 'export-name': GOOD, 'export-size': SIZE }],
    });
    const io = ['-c', 'write -P 9 64k 64k', '-c', 'flush', '-c', 'read -P 9 64k 64k'];
    const said = await bench.must('qemu-io', '-f', 'raw', ...io, uri);
    expect(said).not.toMatch(/failed/i);
  }
  server.kill('SIGTERM');
  expect(await server.ended).toMatchObject({ code: 0, stderr: '' });
  if (!haveTools) return;
  for (const name of ['disk', 'locked', 'good', 'disk-base', 'locked-base'])
    await bench.must('qemu-img', 'check', `${name}.qcow2`);
  await bench.must('qemu-img', 'compare', 'locked.qcow2', 'locked-base.qcow2');
}
