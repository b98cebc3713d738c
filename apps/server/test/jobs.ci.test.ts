import { existsSync, unlinkSync } from 'node:fs';
import { connectNbd, type NbdClient } from '@downfold/nbd';
import type { QmpError } from '@downfold/qmp';
import { describe, expect, it } from 'vitest';
import {
  Bench,
  bytesOf,
  CHAIN,
  contentOf,
  haveTools,
  MIB,
  makeChain,
  type Served,
} from './support.ts';

const clientOf = (bench: Bench): Promise<NbdClient> =>
  connectNbd({ server: { path: bench.file('run/nbd.sock') }, name: '' });

/** What a client reads from the whole disk. */
async function diskOf(bench: Bench): Promise<Buffer> {
  await using client = await clientOf(bench);
  const disk = Buffer.alloc(client.info.size);
  for (let at = 0; at < disk.length; at += MIB) await client.read(at, disk.subarray(at, at + MIB));
  return disk;
}

/** A guest: writes into MiB that all layers hold, while a job works. `expected` is what it has to read. */
class Guest {
  readonly expected: Buffer = contentOf();
  readonly #bench: Bench;
  #sequence = 0;

  constructor(bench: Bench) {
    this.#bench = bench;
  }

  /** Writes `count` pieces that reach over cluster borders, and flushes. */
  async writes(count: number): Promise<void> {
    await using client = await clientOf(this.#bench);
    for (let one = 0; one < count; one++) {
      const number = this.#sequence++;
      const at = (number * 7919 * 512) % (15 * MIB);
      const piece = Buffer.alloc(80 * 1024, `write ${number}; `);
      await client.write(at, piece, { fua: number % 3 === 0 });
      piece.copy(this.expected, at);
    }
    await client.flush();
  }
}

const COMMIT = {
  'job-id': 'j',
  device: 'disk',
  'top-node': '#mid.qcow2',
  'base-node': '#base.qcow2',
};
const DONE = ['waiting', 'pending', 'BLOCK_JOB_COMPLETED', 'concluded', 'null'];

const refusal = (served: Served, name: string, args: object): Promise<string> =>
  served.execute(name, args).then(
    () => 'not refused',
    (cause: QmpError) => cause.message,
  );

describe('a commit beneath a guest that writes', () => {
  it.each(['copy-down', 'depth-first', 'preserve', 'staged', 'auto'])('%s', async (strategy) => {
    await using bench = new Bench();
    await makeChain(bench);
    const served = await bench.disk('top.qcow2');
    const guest = new Guest(bench);
    await served.execute('block-commit', { ...COMMIT, 'x-strategy': strategy, speed: 8 * MIB });
    await guest.writes(15);
    expect(await served.until('null')).toEqual(['created', 'running', ...DONE]);
    await guest.writes(5);
    expect((await diskOf(bench)).equals(guest.expected)).toBe(true);
    expect((await served.stop()).code).toBe(0);
    await bench.disk('top.qcow2');
    expect((await diskOf(bench)).equals(guest.expected)).toBe(true);
    if (!haveTools) return;
    await bench.must('qemu-img', 'check', '-U', 'base.qcow2');
    const [top, base] = JSON.parse(
      await bench.must('qemu-img', 'info', '-U', '--backing-chain', '--output=json', 'top.qcow2'),
    );
    expect(top['backing-filename']).toBe('base.qcow2');
    expect(base['backing-filename']).toBeUndefined();
  });

  it('of the active layer: ready, goes on, pivots; the next start finds the disk', async () => {
    await using bench = new Bench();
    await makeChain(bench);
    const served = await bench.disk('top.qcow2');
    const guest = new Guest(bench);
    await served.execute('block-commit', { 'job-id': 'j', device: 'disk' });
    await guest.writes(8);
    await served.until('BLOCK_JOB_READY');
    await guest.writes(8);
    await served.execute('job-complete', { id: 'j' });
    expect(await served.until('null')).toEqual(DONE);
    await guest.writes(8);
    expect(await served.execute('query-block-exports')).toMatchObject([
      { 'node-name': '#base.qcow2' },
    ]);
    await served.kill();
    // top is marked, and whoever names it gets the disk
    const again = await bench.disk('top.qcow2');
    expect(again.server.stderr).toMatch(/top\.qcow2: was committed, .* serving '.*base\.qcow2'/);
    expect((await diskOf(bench)).equals(guest.expected)).toBe(true);
    await again.execute('blockdev-snapshot-sync', {
      device: 'disk',
      'snapshot-file': bench.file('snap.qcow2'),
    });
    await again.stop();
    // base is a backing file now: writing to it would ruin the snapshot that stands on it
    const stale = await bench.start(['top.qcow2', '--nbd', 'unix:run/nbd.sock']).ended;
    expect(stale.code).toBe(1);
    expect(stale.stderr).toMatch(/on which '.*snap\.qcow2' stands now/);
    unlinkSync(bench.file('snap.qcow2'));
    const explicit = await bench.start([
      '--blockdev',
      'qcow2,node-name=n,file.driver=file,file.filename=top.qcow2',
      '--qmp',
      'unix:run/qmp.sock',
    ]).ended;
    expect(explicit.code).toBe(1);
    expect(explicit.stderr).toMatch(/is not the disk any more; the disk is '.*base\.qcow2'/);
  });

  // whoever is too late is told so: the disk is where the job says it is
  it.each([
    { command: 'job-cancel', of: { id: 'j' } },
    { command: 'block-job-cancel', of: { device: 'j' } },
  ])('of the active layer, and a $command once it pivots', async ({ command, of }) => {
    await using bench = new Bench();
    await makeChain(bench);
    const served = await bench.disk('top.qcow2');
    await served.execute('block-commit', { 'job-id': 'j', device: 'disk' });
    await served.until('BLOCK_JOB_READY');
    await served.execute('job-complete', { id: 'j' });
    await served.until('pending');
    // it is over already where the disk is quick
    expect(await refusal(served, command, of)).toMatch(
      /^Job 'j' in state '\w+' cannot accept command verb 'cancel'$|not found$/,
    );
    expect(await served.until('null')).toEqual(DONE.slice(2));
    expect(await served.execute('query-block-exports')).toMatchObject([
      { 'node-name': '#base.qcow2' },
    ]);
    expect((await diskOf(bench)).equals(contentOf())).toBe(true);
  });

  it('of the active layer, ended softly, leaves a copy and the disk where it was', async () => {
    await using bench = new Bench();
    await makeChain(bench);
    const served = await bench.disk('top.qcow2');
    const guest = new Guest(bench);
    await served.execute('block-commit', { 'job-id': 'j', device: 'disk' });
    await served.until('BLOCK_JOB_READY');
    await guest.writes(5);
    // no snapshot may push the layer down that the job pivots from
    expect(
      await refusal(served, 'blockdev-snapshot-sync', {
        device: 'disk',
        'snapshot-file': bench.file('snap.qcow2'),
      }),
    ).toMatch(/job 'j' uses it/);
    expect(existsSync(bench.file('snap.qcow2'))).toBe(false);
    await served.execute('block-job-cancel', { device: 'j' });
    expect(await served.until('null')).toEqual(DONE);
    const then = Buffer.from(guest.expected);
    await guest.writes(5);
    expect((await diskOf(bench)).equals(guest.expected)).toBe(true);
    await served.stop();
    await bench.disk('base.qcow2', '--read-only');
    expect((await diskOf(bench)).equals(then)).toBe(true);
  });

  it('goes on while a snapshot is taken', async () => {
    await using bench = new Bench();
    await makeChain(bench);
    const served = await bench.disk('top.qcow2');
    const guest = new Guest(bench);
    await served.execute('block-commit', { ...COMMIT, speed: 2 * MIB });
    await guest.writes(5);
    await served.execute('blockdev-snapshot-sync', {
      device: 'disk',
      'snapshot-file': bench.file('snap.qcow2'),
      'snapshot-node-name': 's1',
    });
    await guest.writes(5);
    await served.execute('block-job-set-speed', { device: 'j', speed: 0 });
    expect(await served.until('null')).toEqual(['created', 'running', ...DONE]);
    await guest.writes(5);
    expect((await served.stop()).code).toBe(0);
    await bench.disk('snap.qcow2');
    expect((await diskOf(bench)).equals(guest.expected)).toBe(true);
  });
});

describe('a stream beneath a guest that writes', () => {
  it('of everything leaves the disk alone; killed after it completed, nothing is lost', async () => {
    await using bench = new Bench();
    await makeChain(bench);
    const served = await bench.disk('top.qcow2');
    const guest = new Guest(bench);
    await served.execute('block-stream', { 'job-id': 'j', device: 'disk', speed: 16 * MIB });
    await guest.writes(15);
    expect(await served.until('null')).toEqual(['created', 'running', ...DONE]);
    await served.kill();
    // it stands alone: nothing of what it stood on is needed
    unlinkSync(bench.file('base.qcow2'));
    unlinkSync(bench.file('mid.qcow2'));
    await bench.disk('top.qcow2');
    expect((await diskOf(bench)).equals(guest.expected)).toBe(true);
  });
});

describe('what a job would do, and what it refuses', () => {
  it('x-plan tells the plan and changes nothing', async () => {
    await using bench = new Bench();
    await makeChain(bench);
    const served = await bench.disk('top.qcow2');
    const { 'x-plan': plan } = await served.execute<{ 'x-plan': Record<string, unknown> }>(
      'block-commit',
      { ...COMMIT, 'x-plan': true },
    );
    expect(plan).toMatchObject({ planVersion: 1, bytesToCopy: 4 * MIB, invalidates: [] });
    expect(await served.execute('query-jobs')).toEqual([]);
    expect((await diskOf(bench)).equals(contentOf())).toBe(true);
  });

  it('other overlays of base are kept only when asked for', async () => {
    await using bench = new Bench();
    await makeChain(bench);
    const { base = [], mid = [] } = CHAIN;
    await makeChain(
      {
        file: (name: string) => bench.file(name === 'base.qcow2' ? 'unused.qcow2' : name),
      } as Bench,
      {
        base: [],
        sibling: [9],
      },
    );
    expect([base.length, mid.length]).toEqual([4, 4]);
    const served = await bench.disk('top.qcow2');
    expect(await refusal(served, 'block-commit', COMMIT)).toMatch(
      /would not read any more what they read: .*sibling\.qcow2; .*'x-siblings'/,
    );
    await served.execute('block-commit', {
      ...COMMIT,
      'x-siblings': 'keep',
      'x-strategy': 'preserve',
    });
    expect((await served.until('null')).at(-3)).toBe('BLOCK_JOB_COMPLETED');
    await served.stop();
    await bench.disk('sibling.qcow2');
    const expected = contentOf({ base });
    bytesOf('sibling', 9).copy(expected, 9 * MIB);
    expect((await diskOf(bench)).equals(expected)).toBe(true);
  });

  it('a second job on a disk is refused while one works', async () => {
    await using bench = new Bench();
    await makeChain(bench);
    const served = await bench.disk('top.qcow2');
    await served.execute('block-commit', { ...COMMIT, speed: MIB });
    expect(await refusal(served, 'block-stream', { device: 'disk' })).toBe(
      "Node '#base.qcow2' is busy: block device is in use by block job: commit (job 'j')",
    );
    await served.execute('job-cancel', { id: 'j' });
    await served.until('null');
  });

  it('a backing-file too long fails the job; chain and graph are as they were', async () => {
    await using bench = new Bench();
    await makeChain(bench);
    const served = await bench.disk('top.qcow2');
    const nodes = await served.execute('query-named-block-nodes');
    await served.execute('block-commit', { ...COMMIT, 'backing-file': 'x'.repeat(1100) });
    const events = await served.until('null');
    expect(events.slice(-3)).toEqual(['BLOCK_JOB_COMPLETED with error', 'concluded', 'null']);
    expect((await diskOf(bench)).equals(contentOf())).toBe(true);
    expect(await served.execute('query-named-block-nodes')).toEqual(nodes);
    // and with a name that fits it is done
    await served.execute('block-commit', { ...COMMIT, 'backing-file': './base.qcow2' });
    expect(await served.until('null')).toEqual(['created', 'running', ...DONE]);
    await served.stop();
    const again = await bench.disk('top.qcow2');
    expect((await diskOf(bench)).equals(contentOf())).toBe(true);
    expect(await again.execute('query-named-block-nodes', { flat: true })).toEqual(
      expect.arrayContaining([
        expect.objectContaining({
          image: expect.objectContaining({ 'backing-filename': './base.qcow2' }),
        }),
      ]),
    );
  });
});
