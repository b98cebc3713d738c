import { readFileSync, rmSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { perTier, Random, talk } from '@downfold/compliance';
import { connectNbd, type NbdClient } from '@downfold/nbd';
import { connectQmp } from '@downfold/qmp';
import { expect, it } from 'vitest';
import { conversation } from './fuzz/nbd.ts';
import { get, METRICS } from './http.ts';
import {
  Bench,
  BIN,
  contentOf,
  haveTools,
  MIB,
  makeChain,
  Served,
  type Started,
} from './support.ts';
import { Doctor } from './vitals.ts';

/** Seconds; `DOWNFOLD_SOAK` for another length. */
const length =
  Number(process.env['DOWNFOLD_SOAK'] ?? 0) || perTier({ quick: 5, ci: 20, long: 3600 });
const SPEC = { base: [0, 1, 2, 3], disk: [2, 4] };
const SIZE = 16 * MIB;
const COLLECTS = new URL('collects.mjs', import.meta.url).href;
const BASE = '#base.qcow2';
const STRATEGIES = ['copy-down', 'depth-first', 'preserve', 'staged', 'auto'];

const clientOf = (bench: Bench): Promise<NbdClient> =>
  connectNbd({ server: { path: bench.file('run/nbd.sock') }, name: '' });

/** A guest that writes all the time, over a connection that it renews: some pieces over cluster borders, zeros, discards. It knows what it has to read. */
class Guest {
  readonly expected: Buffer = contentOf(SPEC);
  writes = 0;
  readonly #bench: Bench;
  readonly #random = new Random(4);
  #paused: PromiseWithResolvers<void> | null = null;
  #idle: PromiseWithResolvers<void> | null = null;
  #over = false;
  readonly done: Promise<void>;

  constructor(bench: Bench) {
    this.#bench = bench;
    this.done = this.#live();
  }

  /** Reads the whole disk while nothing is written, and compares. */
  async check(): Promise<void> {
    this.#paused = Promise.withResolvers();
    this.#idle = Promise.withResolvers();
    await Promise.race([this.#idle.promise, this.done]);
    await using client = await clientOf(this.#bench);
    const disk = Buffer.alloc(SIZE);
    for (let at = 0; at < SIZE; at += MIB) await client.read(at, disk.subarray(at, at + MIB));
    const wrong = disk.findIndex((byte, at) => byte !== this.expected[at]);
    if (wrong >= 0) throw new Error(`byte ${wrong} of the disk is not what was written last`);
    this.#paused.resolve();
    this.#paused = null;
  }

  async end(): Promise<void> {
    this.#over = true;
    await this.done;
  }

  async #live(): Promise<void> {
    while (!this.#over) {
      await using client = await clientOf(this.#bench);
      for (let count = 0; count < 200 && !this.#over; count++) {
        this.#idle?.resolve();
        await this.#paused?.promise;
        await this.#write(client);
      }
      await client.flush();
    }
  }

  async #write(client: NbdClient): Promise<void> {
    const random = this.#random;
    const number = this.writes++;
    const at = random.next(SIZE - 100_000);
    const count = 1 + random.next(100_000);
    if (number % 10 === 0) {
      await client.writeZeroes(at, count);
      this.expected.fill(0, at, at + count);
      return;
    }
    const piece = Buffer.alloc(count, `write ${number} at ${at}; `);
    await client.write(at, piece, { fua: number % 7 === 0 });
    piece.copy(this.expected, at);
    // a disk is rarely busy all the time
    if (number % 5 === 0) await sleep(5);
  }
}

/** What is done beneath the guest, a round of it after another. */
class Rounds {
  count = 0;
  #active = 'disk';
  readonly #bench: Bench;
  readonly #served: Served;

  constructor(bench: Bench, served: Served) {
    this.#bench = bench;
    this.#served = served;
  }

  /** The file of the active layer, without its ending. */
  get active(): string {
    return this.#active === BASE ? 'base' : this.#active;
  }

  /** Two snapshots, and a way to get rid of them. */
  async next(): Promise<void> {
    const round = this.count++;
    const gone = [this.#active, await this.#snapshot(`s${round}a`)];
    await sleep(100);
    await this.#snapshot(`s${round}b`);
    if (round % 7 === 5) await this.#stream(gone);
    else await this.#commit(gone, STRATEGIES[round % STRATEGIES.length] ?? '', round % 4 === 3);
    if (round % 7 === 6) await this.#pivot();
  }

  async #snapshot(name: string): Promise<string> {
    await this.#served.execute('blockdev-snapshot-sync', {
      'node-name': this.#active,
      'snapshot-file': this.#bench.file(`${name}.qcow2`),
      'snapshot-node-name': name,
    });
    this.#active = name;
    return name;
  }

  /** @param again gives it up once, and begins anew */
  async #commit(gone: readonly string[], strategy: string, again: boolean): Promise<void> {
    const layers = gone.filter((name) => name !== BASE);
    const args = {
      'job-id': 'j',
      device: this.#active,
      'top-node': layers.at(-1),
      'base-node': BASE,
      'x-strategy': strategy,
    };
    if (again) {
      await this.#served.execute('block-commit', { ...args, speed: MIB });
      await this.#served.execute('job-cancel', { id: 'j' });
      await this.#served.until('null');
    }
    await this.#served.execute('block-commit', args);
    await this.#over();
    this.#forget(layers);
  }

  async #stream(gone: readonly string[]): Promise<void> {
    const args = { 'job-id': 'j', device: this.#active, 'base-node': BASE };
    await this.#served.execute('block-stream', args);
    await this.#over();
    this.#forget(gone.filter((name) => name !== BASE));
  }

  async #pivot(): Promise<void> {
    await this.#served.execute('block-commit', { 'job-id': 'j', device: this.#active });
    await this.#served.until('BLOCK_JOB_READY');
    await this.#served.execute('job-complete', { id: 'j' });
    await this.#over();
    this.#forget([this.#active]);
    this.#active = BASE;
  }

  async #over(): Promise<void> {
    const events = await this.#served.until('null');
    expect(events.slice(-3), `round ${this.count}`).toEqual([
      'BLOCK_JOB_COMPLETED',
      'concluded',
      'null',
    ]);
  }

  #forget(layers: readonly string[]): void {
    for (const name of layers) rmSync(this.#bench.file(`${name}.qcow2`));
  }
}

/** Clients that come and go, good ones and bad ones. */
async function comeAndGo(bench: Bench, random: Random): Promise<void> {
  const clients = await Promise.all(Array.from({ length: 5 }, () => clientOf(bench)));
  await Promise.all(
    clients.map((client) => client.read(random.next(SIZE / 2), Buffer.alloc(4096))),
  );
  await Promise.all(clients.map((client) => client.close()));
  for (let bad = 0; bad < 3; bad++) {
    // for an export that is not there: what it wrote nobody would know
    const said = conversation(random, ['nosuch'], SIZE);
    await talk(bench.file('run/nbd.sock'), said.slice(0, -1 - random.next(3)));
  }
  await using qmp = await connectQmp(bench.file('run/qmp.sock'));
  await qmp.execute('query-named-block-nodes', {});
}

async function serve(bench: Bench): Promise<Started> {
  const server = bench.program(
    ...(['env', `NODE_OPTIONS=--import=${COLLECTS}`, process.execPath] as const),
    ...['--max-semi-space-size=1', '--max-old-space-size=64', BIN, 'disk.qcow2', ...METRICS],
    ...['--nbd', 'unix:run/nbd.sock', '--qmp', 'unix:run/qmp.sock', '--log-level', 'error'],
  );
  await expect
    .poll(() => get(bench, '/healthz').catch(() => null), { timeout: 20_000 })
    .toMatchObject({ status: 200 });
  return server;
}

it(`jobs, snapshots, clients and writers in turn for ${length} s: memory stays flat`, {
  timeout: (length + 120) * 1000,
}, async () => {
  await using bench = new Bench();
  await makeChain(bench, SPEC);
  const server = await serve(bench);
  const served = new Served(server, await connectQmp(bench.file('run/qmp.sock')));
  const doctor = new Doctor(bench, server.pid);
  const rounds = new Rounds(bench, served);
  const guest = new Guest(bench);
  const random = new Random(5);
  const end = performance.now() + length * 1000;
  while (performance.now() < end) {
    await Promise.race([rounds.next(), failing(guest.done)]);
    await comeAndGo(bench, random);
    if (rounds.count % 5 === 0) await guest.check();
    await doctor.look();
  }
  await guest.check();
  await guest.end();
  expect(await get(bench, '/healthz')).toMatchObject({ status: 200 });
  expect(server.stderr).toBe('');
  console.info(`${rounds.count} rounds, ${guest.writes} writes: ${doctor.curve}`);
  const files = doctor.looks.map((one) => one.files);
  const tenth = Math.ceil(files.length / 10);
  expect(Math.max(...files.slice(-tenth))).toBeLessThanOrEqual(Math.max(...files.slice(0, -tenth)));
  // nodes of layers that are gone went with them: two for each layer, and those of the disk that the command line named
  const nodes = await served.execute('query-named-block-nodes', { flat: true });
  expect((nodes as readonly unknown[]).length).toBeLessThanOrEqual(8);
  doctor.expectFlat({ heap: 4 * MIB, resident: 10 * MIB });
  await served.qmp[Symbol.asyncDispose]();
  expect((await served.stop()).code).toBe(0);
  if (!haveTools) return;
  const disk = `${rounds.active}.qcow2`;
  await bench.must('qemu-img', 'check', disk);
  await bench.must('qemu-img', 'convert', '-O', 'raw', disk, 'disk.raw');
  expect(readFileSync(bench.file('disk.raw')).equals(guest.expected)).toBe(true);
});

/** Never resolves; rejects when `work` does. */
function failing(work: Promise<unknown>): Promise<never> {
  return work.then(() => new Promise<never>(() => {}));
}
