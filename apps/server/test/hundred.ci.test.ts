import { readFileSync } from 'node:fs';
import { connectNbd, type NbdClient } from '@downfold/nbd';
import { describe, expect, it } from 'vitest';
import { get, METRICS } from './http.ts';
import { Bench, haveTools, MIB, makeChain } from './support.ts';

/** As many clients as the server lets in unless told otherwise. */
const MOST = 100;
/** Bytes of the disk that are a client's own: no multiple of a cluster, so that neighbours meet in one. */
const OWN = 160 * 1024 - 512;
const ROUNDS = 4;

const clientOf = (bench: Bench): Promise<NbdClient> =>
  connectNbd({ server: { path: bench.file('run/nbd.sock') }, name: '' });

/** Blocks that say whose they are, and in which round they were written. */
function block(client: number, round: number): Buffer {
  return Buffer.alloc(OWN, `client ${client}, round ${round}; `);
}

/** Writes what is its own, as one piece or many, durably or flushed, and reads it back; what a neighbour flushed before is there, too. */
async function work(client: NbdClient, index: number, round: number): Promise<void> {
  const mine = block(index, round);
  const back = Buffer.alloc(OWN);
  const pieces = 1 + ((index + round) % 7);
  const length = Math.ceil(OWN / pieces);
  const all = Array.from({ length: pieces }, (_, piece) => piece * length);
  const fua = index % 2 === 0;
  await Promise.all(
    all.map((at) => client.write(index * OWN + at, mine.subarray(at, at + length), { fua })),
  );
  if (!fua) await client.flush();
  await Promise.all(all.map((at) => client.read(index * OWN + at, back.subarray(at, at + length))));
  if (!back.equals(mine)) throw new Error(`client ${index}, round ${round} reads something else`);
}

describe('a hundred clients at once', () => {
  it('each reads what it wrote, one more is turned away, and a place that is free is given again', async () => {
    await using bench = new Bench();
    await makeChain(bench);
    const served = await bench.disk('top.qcow2', ...METRICS);
    const clients = await Promise.all(Array.from({ length: MOST }, () => clientOf(bench)));
    const value = async (name: string): Promise<number> => {
      const { text } = await get(bench, '/metrics');
      const line = text.split('\n').find((one) => one.startsWith(`${name} `));
      return Number(line?.split(' ').at(-1));
    };
    expect(await value('downfold_nbd_clients')).toBe(MOST);
    for (let round = 0; round < ROUNDS; round++) {
      const working = Promise.all(clients.map((client, index) => work(client, index, round)));
      if (round > 0) {
        await working;
        continue;
      }
      // who is one too many harms nobody
      const late = await Promise.allSettled(Array.from({ length: 10 }, () => clientOf(bench)));
      for (const one of late)
        expect(one).toMatchObject({ status: 'rejected', reason: { code: 'NBD_CONNECT' } });
      expect(await served.execute('query-block-exports')).toHaveLength(1);
      await working;
    }
    expect(await value('downfold_nbd_dropped_clients_total{reason="NBD_LIMIT"}')).toBe(10);
    expect(served.server.stderr).toMatch(/NBD: a client was turned away: there are 100 already/);

    // what one wrote, all others see
    await Promise.all(
      clients.map(async (client, index) => {
        const other = (index * 37 + 11) % MOST;
        const back = Buffer.alloc(OWN);
        await client.read(other * OWN, back);
        expect(back.equals(block(other, ROUNDS - 1)), `client ${index} of ${other}`).toBe(true);
      }),
    );
    await Promise.all(clients.slice(0, 30).map((client) => client.close()));
    await expect.poll(() => value('downfold_nbd_clients')).toBe(MOST - 30);
    const again = await Promise.all(Array.from({ length: 30 }, () => clientOf(bench)));
    await Promise.all(again.map((client) => client.flush()));
    await Promise.all([...clients.slice(30), ...again].map((client) => client.close()));
    await expect.poll(() => value('downfold_nbd_clients')).toBe(0);
    expect((await served.stop()).code).toBe(0);

    if (!haveTools) return;
    await bench.must('qemu-img', 'check', 'top.qcow2');
    await bench.must('qemu-img', 'convert', '-O', 'raw', 'top.qcow2', 'disk.raw');
    const disk = readFileSync(bench.file('disk.raw'));
    for (let client = 0; client < MOST; client++) {
      const at = client * OWN;
      expect(disk.subarray(at, at + OWN).equals(block(client, ROUNDS - 1)), `${client}`).toBe(true);
    }
    expect(disk).toHaveLength(16 * MIB);
  });
});
