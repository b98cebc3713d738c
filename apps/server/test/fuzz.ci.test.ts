import { readFileSync } from 'node:fs';
import { forSeeds, mangle, Punctual, perTier, Random, recut, talk } from '@downfold/compliance';
import { connectNbd, type NbdClient } from '@downfold/nbd';
import { connectQmp } from '@downfold/qmp';
import { describe, expect, it } from 'vitest';
import { conversation, type MayWrite, mayWrite, unasked } from './fuzz/nbd.ts';
import { badAnswer, session } from './fuzz/qmp.ts';
import { get, METRICS } from './http.ts';
import { Bench, BIN, haveTools, MIB, makeChain, type Started } from './support.ts';
import { Doctor } from './vitals.ts';

/** Malformed inputs of each protocol. */
const inputs = Number(process.env['FUZZ'] ?? 0) || perTier({ quick: 100, ci: 2000, long: 100_000 });
const SIZE = MIB;
const NAMES = ['disk', 'locked'];
const GOOD = 'a name that no bit flip makes';

/** A server with a disk that anybody may write, one that nobody may, and one for a client that behaves. Its heap is kept small, so that a leak shows. */
async function serve(bench: Bench): Promise<Started> {
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
  return server;
}

const clientOf = (bench: Bench, name: string): Promise<NbdClient> =>
  connectNbd({ server: { path: bench.file('run/nbd.sock') }, name });

async function contentsOf(bench: Bench, name: string): Promise<Buffer> {
  await using client = await clientOf(bench, name);
  const bytes = Buffer.alloc(SIZE);
  await client.read(0, bytes);
  return bytes;
}

/** Judged by programs that are not ours: the server still serves, and its images are whole. */
async function expectServes(bench: Bench, server: Started): Promise<void> {
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

/** The inputs got as far as the disk, by every command, and as far as being cut off: else they would prove little. */
async function expectDeep(bench: Bench): Promise<void> {
  const { text } = await get(bench, '/metrics');
  const counts = [
    ...text.matchAll(
      /^downfold_(?:export_requests|nbd_dropped_clients)_total\{(?:export="disk",command|reason)="(\w+)"\} (\d+)$/gm,
    ),
  ];
  const most = Object.fromEntries(counts.map(([, name, count]) => [name, Number(count)]));
  for (const name of ['read', 'write', 'flush', 'trim', 'cache', 'write_zeroes', 'block_status'])
    expect(most[name], name).toBeGreaterThan(inputs / 100);
  expect(most['NBD_PROTOCOL']).toBeGreaterThan(inputs / 4);
}

/** Looks at the server, until only `files` descriptors are open. */
async function expectClosed(doctor: Doctor, files: number): Promise<void> {
  await expect
    .poll(async () => (await doctor.look()).files, { timeout: 10_000 })
    .toBeLessThanOrEqual(files);
}

describe('malformed bytes for a server', () => {
  it(`${inputs} NBD clients: it drops them, or answers; what nobody asked for does not change`, async () => {
    await using bench = new Bench();
    const server = await serve(bench);
    const doctor = new Doctor(bench, server.pid);
    const before = { locked: await contentsOf(bench, 'locked') };
    let disk = await contentsOf(bench, 'disk');
    await using bystander = await clientOf(bench, GOOD);
    const { files } = await doctor.look();
    let asked: MayWrite[] = [];
    let earlier: MayWrite[] = [];
    const one = async (seed: number): Promise<void> => {
      const random = new Random(seed);
      const pieces = mangle(random, conversation(random, NAMES, SIZE));
      const cut = recut(random, pieces);
      await punctual.time(`DOWNFOLD_SEED=${seed}`, () => {
        asked.push(...mayWrite(Buffer.concat(pieces), SIZE));
        return talk(bench.file('run/nbd.sock'), cut);
      });
    };
    const punctual = new Punctual();
    let turn = 0;
    const between = async (): Promise<void> => {
      turn += 1;
      const [bytes, back] = [Buffer.alloc(512, turn), Buffer.alloc(512)];
      const at = (turn * 512) % (SIZE / 2);
      await punctual.time('the bystander', async () => {
        await bystander.write(at, bytes);
        await bystander.read(at, back);
      });
      if (!back.equals(bytes)) throw new Error('the bystander reads something else');
      if (turn % 20 !== 0) return;
      const now = await contentsOf(bench, 'disk');
      // a client may be gone before its write is done
      const at2 = unasked(disk, now, [...earlier, ...asked]);
      if (at2 !== null) throw new Error(`byte ${at2} changed, by none of the last 400 clients`);
      [disk, earlier, asked] = [now, asked, []];
      await doctor.look();
    };
    await forSeeds(inputs, one, between);
    console.info(`late on a busy machine: ${await punctual.settle()}`);
    await expectClosed(doctor, files);
    expect((await contentsOf(bench, 'locked')).equals(before.locked)).toBe(true);
    console.info(`NBD: ${doctor.curve}`);
    if (process.env['DOWNFOLD_SEED'] === undefined) await expectDeep(bench);
    if (doctor.looks.length > 15) doctor.expectFlat(8 * MIB);
    await bystander.close();
    await expectServes(bench, server);
  });

  it(`${inputs} QMP sessions: each line has an answer, none of them an error of the server's own`, async () => {
    await using bench = new Bench();
    const server = await serve(bench);
    const doctor = new Doctor(bench, server.pid);
    const { files } = await doctor.look();
    const one = async (seed: number): Promise<void> => {
      const random = new Random(seed);
      const pieces = recut(random, session(random));
      const bad = badAnswer(
        await punctual.time(`DOWNFOLD_SEED=${seed}`, () =>
          talk(bench.file('run/qmp.sock'), pieces),
        ),
      );
      if (bad !== null) throw new Error(bad);
    };
    const punctual = new Punctual();
    let turn = 0;
    const between = async (): Promise<void> => {
      turn += 1;
      if (turn % 20 !== 0) return;
      const exports = await punctual.time('a good client', async () => {
        await using good = await connectQmp(bench.file('run/qmp.sock'));
        return await good.execute('query-block-exports');
      });
      expect(exports).toHaveLength(3);
      await doctor.look();
    };
    const disk = readFileSync(bench.file('disk.qcow2'));
    await forSeeds(inputs, one, between, 15);
    console.info(`late on a busy machine: ${await punctual.settle()}`);
    await expectClosed(doctor, files);
    expect(readFileSync(bench.file('disk.qcow2')).equals(disk)).toBe(true);
    console.info(`QMP: ${doctor.curve}`);
    if (doctor.looks.length > 15) doctor.expectFlat(8 * MIB);
    await expectServes(bench, server);
  });
});
