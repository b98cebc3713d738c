import { readFileSync } from 'node:fs';
import { forSeeds, mangle, Punctual, perTier, Random, recut, talk } from '@downfold/compliance';
import { connectQmp } from '@downfold/qmp';
import { describe, expect, it } from 'vitest';
import { conversation, type MayWrite, mayWrite, unasked } from './fuzz/nbd.ts';
import { badAnswer, session } from './fuzz/qmp.ts';
import { clientOf, contentsOf, expectServes, GOOD, SIZE, serve } from './fuzz/server.ts';
import { get } from './http.ts';
import { Bench, MIB } from './support.ts';
import { Doctor } from './vitals.ts';

// Replay: DOWNFOLD_TIER=ci DOWNFOLD_SEED=N vitest run --project server fuzz -t NBD (or -t QMP)
const clients = perTier({ quick: 100, ci: 2000, long: 100_000 });
const sessions = perTier({ quick: 50, ci: 1000, long: 100_000 });
const NAMES = ['disk', 'locked'];

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
    expect(most[name], name).toBeGreaterThan(clients / 100);
  expect(most['NBD_PROTOCOL']).toBeGreaterThan(clients / 4);
}

/** Looks at the server, until only `files` descriptors are open. */
async function expectClosed(doctor: Doctor, files: number): Promise<void> {
  await expect
    .poll(async () => (await doctor.look()).files, { timeout: 10_000 })
    .toBeLessThanOrEqual(files);
}

describe('malformed bytes for a server', () => {
  it(`${clients} NBD clients: it drops them, or answers; what nobody asked for does not change`, async () => {
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
    await forSeeds(clients, one, between);
    console.info(`late on a busy machine: ${await punctual.settle()}`);
    await expectClosed(doctor, files);
    expect((await contentsOf(bench, 'locked')).equals(before.locked)).toBe(true);
    console.info(`NBD: ${doctor.curve}`);
    if (process.env['DOWNFOLD_SEED'] === undefined) await expectDeep(bench);
    if (doctor.looks.length > 15) doctor.expectFlat({ heap: 6 * MIB, resident: 8 * MIB });
    await bystander.close();
    await expectServes(bench, server);
  });

  it(`${sessions} QMP sessions: each line has an answer, none of them an error of the server's own`, async () => {
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
    await forSeeds(sessions, one, between, 15);
    console.info(`late on a busy machine: ${await punctual.settle()}`);
    await expectClosed(doctor, files);
    expect(readFileSync(bench.file('disk.qcow2')).equals(disk)).toBe(true);
    console.info(`QMP: ${doctor.curve}`);
    if (doctor.looks.length > 15) doctor.expectFlat({ heap: 6 * MIB, resident: 8 * MIB });
    await expectServes(bench, server);
  });
});
