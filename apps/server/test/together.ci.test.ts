import { existsSync, readFileSync } from 'node:fs';
import { connectNbd, type NbdClient } from '@downfold/nbd';
import type { QmpError } from '@downfold/qmp';
import { describe, expect, it } from 'vitest';
import {
  Bench,
  type ChainSpec,
  contentOf,
  haveTools,
  MIB,
  makeChain,
  type Served,
} from './support.ts';

/** Seven layers: room for two jobs, and for what lies between and below them. */
const SPEC: ChainSpec = {
  a: [0, 1, 2, 3, 12],
  b: [1, 2, 4, 5],
  c: [2, 6, 7],
  d: [3, 7, 8],
  e: [4, 8, 9],
  f: [5, 9, 10],
  disk: [6, 10, 11],
};
const node = (name: string): string => (name === 'disk' ? 'disk' : `#${name}.qcow2`);

const clientOf = (bench: Bench): Promise<NbdClient> =>
  connectNbd({ server: { path: bench.file('run/nbd.sock') }, name: '' });

async function diskOf(bench: Bench): Promise<Buffer> {
  await using client = await clientOf(bench);
  const disk = Buffer.alloc(client.info.size);
  for (let at = 0; at < disk.length; at += MIB) await client.read(at, disk.subarray(at, at + MIB));
  return disk;
}

/** Writes pieces that reach over cluster borders all over the disk, and flushes. */
async function writes(bench: Bench, count: number, expected: Buffer): Promise<void> {
  await using client = await clientOf(bench);
  for (let one = 0; one < count; one++) {
    const at = (one * 7919 * 512) % (15 * MIB);
    const piece = Buffer.alloc(80 * 1024, `write ${one} of ${count}; `);
    await client.write(at, piece);
    piece.copy(expected, at);
  }
  await client.flush();
}

const commit = (id: string, base: string, top: string, more: object = {}) => ({
  'job-id': id,
  device: 'disk',
  'base-node': node(base),
  'top-node': node(top),
  ...more,
});

const refusal = (served: Served, name: string, args: object): Promise<string> =>
  served.execute(name, args).then(
    () => 'not refused',
    ({ code, message }: QmpError) => `${code}: ${message}`,
  );

async function idle(served: Served): Promise<void> {
  await expect.poll(() => served.execute('query-jobs'), { timeout: 20_000 }).toEqual([]);
}

/** What QEMU finds of the chain: names bottom first. */
async function chainOf(bench: Bench, file: string): Promise<readonly string[]> {
  const all = JSON.parse(
    await bench.must('qemu-img', 'info', '-U', '--backing-chain', '--output=json', file),
  ) as { readonly filename: string }[];
  return all.map(({ filename }) => filename.split('/').at(-1) as string).reverse();
}

/** Judged by QEMU, from the files alone, after the server ended. */
async function judge(
  bench: Bench,
  file: string,
  chain: readonly string[],
  expected: Buffer,
): Promise<void> {
  if (!haveTools) return;
  expect(await chainOf(bench, file)).toEqual(chain);
  for (const image of chain) await bench.must('qemu-img', 'check', image);
  await bench.must('qemu-img', 'convert', '-O', 'raw', file, 'seen.raw');
  expect(readFileSync(bench.file('seen.raw')).equals(expected)).toBe(true);
}

describe('two jobs beneath one disk', () => {
  it.each(['copy-down', 'depth-first', 'staged'])(
    'a commit (%s) of the lower part and a stream of the upper one, beside each other',
    async (strategy) => {
      await using bench = new Bench();
      await makeChain(bench, SPEC);
      const served = await bench.disk('disk.qcow2');
      const expected = contentOf(SPEC);
      // both work while the guest writes: one stands on what the other relinks
      await served.execute(
        'block-commit',
        commit('down', 'a', 'b', { 'x-strategy': strategy, speed: 2 * MIB }),
      );
      await served.execute('block-stream', {
        'job-id': 'up',
        device: 'disk',
        'base-node': node('c'),
        speed: 4 * MIB,
      });
      expect(await served.execute('query-jobs')).toMatchObject([
        { id: 'down', status: 'running' },
        { id: 'up', status: 'running' },
      ]);
      await writes(bench, 12, expected);
      expect((await diskOf(bench)).equals(expected)).toBe(true);
      await idle(served);
      await writes(bench, 5, expected);
      expect((await diskOf(bench)).equals(expected)).toBe(true);
      expect((await served.stop()).code).toBe(0);
      expect(served.server.stderr).toMatch(/job 'down': completed/);
      expect(served.server.stderr).toMatch(/job 'up': completed/);
      await judge(bench, 'disk.qcow2', ['a.qcow2', 'c.qcow2', 'disk.qcow2'], expected);
    },
  );

  it('a commit onto the middle reads through layers that another commit drains meanwhile', async () => {
    await using bench = new Bench();
    await makeChain(bench, SPEC);
    const served = await bench.disk('disk.qcow2');
    const expected = contentOf(SPEC);
    await served.execute('block-commit', commit('up', 'd', 'e', { speed: MIB }));
    await served.execute(
      'block-commit',
      commit('down', 'a', 'b', { 'x-strategy': 'depth-first', speed: 2 * MIB }),
    );
    await writes(bench, 12, expected);
    await idle(served);
    expect((await diskOf(bench)).equals(expected)).toBe(true);
    await served.stop();
    const chain = ['a', 'c', 'd', 'f', 'disk'].map((name) => `${name}.qcow2`);
    await judge(bench, 'disk.qcow2', chain, expected);
  });

  it('an active commit pivots while a stream into a lower layer goes on', async () => {
    await using bench = new Bench();
    await makeChain(bench, SPEC);
    const served = await bench.disk('disk.qcow2');
    const expected = contentOf(SPEC);
    await served.execute('block-stream', {
      'job-id': 'low',
      device: node('c'),
      'base-node': node('a'),
      speed: MIB,
    });
    await served.execute('block-commit', {
      'job-id': 'top',
      device: 'disk',
      'base-node': node('e'),
    });
    await writes(bench, 8, expected);
    await served.until('BLOCK_JOB_READY');
    await served.execute('job-complete', { id: 'top' });
    await served.until('BLOCK_JOB_COMPLETED');
    expect(await served.execute('query-jobs')).toMatchObject([{ id: 'low' }]);
    await writes(bench, 8, expected);
    await served.execute('block-job-set-speed', { device: 'low', speed: 0 });
    await idle(served);
    expect((await diskOf(bench)).equals(expected)).toBe(true);
    await served.stop();
    await judge(
      bench,
      'e.qcow2',
      ['a', 'c', 'd', 'e'].map((name) => `${name}.qcow2`),
      expected,
    );
  });

  it('a second job that would touch what the first one does is refused, with the node and the job', async () => {
    await using bench = new Bench();
    await makeChain(bench, SPEC);
    const served = await bench.disk('disk.qcow2');
    await served.execute('block-commit', commit('first', 'b', 'c', { speed: 1 }));
    const busy = (at: string): string =>
      `GenericError: Node '${node(at)}' is busy: block device is in use by block job: commit (job 'first')`;
    const second = (base: string, top: string, more: object = {}): Promise<string> =>
      refusal(served, 'block-commit', commit('second', base, top, more));
    expect(await second('b', 'c')).toBe(busy('b'));
    // its base is the one's top
    expect(await second('c', 'e')).toBe(busy('c'));
    // its base is relinked by the other, and both would write it
    expect(await second('d', 'e')).toBe(busy('d'));
    // it relinks what the other writes
    expect(await second('a', 'a')).toMatch(/into itself/);
    expect(await refusal(served, 'block-stream', { 'job-id': 's', device: 'disk' })).toBe(
      busy('b'),
    );
    expect(
      await refusal(served, 'block-stream', {
        'job-id': 's',
        device: 'disk',
        'base-node': node('c'),
      }),
    ).toBe(busy('d'));
    // what saves the content of siblings reads everything below
    expect(await second('e', 'f', { 'x-strategy': 'preserve', 'x-plan': true })).toBe(busy('b'));
    expect(await second('e', 'f', { 'x-plan': true })).toBe('not refused');
    expect(await served.execute('query-jobs')).toMatchObject([{ id: 'first' }]);
    await served.execute('job-cancel', { id: 'first' });
    await idle(served);
    await served.execute('block-commit', commit('second', 'a', 'c'));
    await idle(served);
    expect((await diskOf(bench)).equals(contentOf(SPEC))).toBe(true);
  });

  it('both killed, and gone on with by the next start', async () => {
    await using bench = new Bench();
    await makeChain(bench, SPEC);
    const served = await bench.disk('disk.qcow2');
    const expected = contentOf(SPEC);
    await served.execute('block-commit', commit('down', 'a', 'b', { speed: MIB }));
    const up = { 'job-id': 'up', device: 'disk', 'base-node': node('c'), speed: MIB };
    await served.execute('block-stream', up);
    await writes(bench, 6, expected);
    await served.kill();
    expect(existsSync(bench.file('c.qcow2.downfold'))).toBe(true);
    expect(existsSync(bench.file('disk.qcow2.downfold'))).toBe(true);
    const again = await bench.disk('disk.qcow2');
    // a new job over one that waits is refused; the other one is gone on with first
    expect(await refusal(again, 'block-commit', commit('new', 'a', 'b'))).toMatch(
      /^GenericError: .*c\.qcow2: an earlier job was interrupted.*x-journal-resume/,
    );
    expect(await again.execute('x-query-journals')).toMatchObject([
      { 'node-name': '#c.qcow2', operation: 'commit', strategy: 'copy-down' },
      { 'node-name': 'disk', operation: 'stream', strategy: 'stream' },
    ]);
    await again.execute('x-journal-resume', { image: '#c.qcow2', 'job-id': 'down' });
    await again.until('null');
    expect(await again.execute('x-query-journals')).toMatchObject([{ 'node-name': 'disk' }]);
    await writes(bench, 3, expected);
    await again.stop();
    const last = await bench.disk('disk.qcow2', '--resume');
    await idle(last);
    expect((await diskOf(bench)).equals(expected)).toBe(true);
    await last.stop();
    await judge(bench, 'disk.qcow2', ['a.qcow2', 'c.qcow2', 'disk.qcow2'], expected);
  });

  it('both killed, one gone on with by the command line after the other one changed what it stands on', async () => {
    await using bench = new Bench();
    await makeChain(bench, SPEC);
    const served = await bench.disk('disk.qcow2');
    const expected = contentOf(SPEC);
    await served.execute('block-commit', commit('down', 'a', 'b', { speed: MIB }));
    const up = { 'job-id': 'up', device: 'disk', 'base-node': node('c'), speed: MIB };
    await served.execute('block-stream', up);
    await writes(bench, 6, expected);
    await served.kill();
    const cli = new URL('../../cli/bin/downfold.js', import.meta.url).pathname;
    await bench.must(process.execPath, cli, 'resume', 'c.qcow2');
    await bench.must(process.execPath, cli, 'resume', 'disk.qcow2');
    await judge(bench, 'disk.qcow2', ['a.qcow2', 'c.qcow2', 'disk.qcow2'], expected);
  });
});

describe('an interrupted job over QMP', () => {
  it('is given up: links as they were, what holds a part of it is marked', async () => {
    await using bench = new Bench();
    await makeChain(bench, SPEC);
    const served = await bench.disk('disk.qcow2');
    await served.execute('block-commit', commit('down', 'a', 'b', { speed: MIB }));
    await expect
      .poll(() => served.execute('query-jobs'))
      .toMatchObject([{ 'current-progress': expect.toSatisfy((done) => done > 0) }]);
    await served.kill();
    const again = await bench.disk('disk.qcow2');
    expect(await refusal(again, 'x-journal-abort', { image: 'disk' })).toMatch(/no journal/);
    expect(await again.execute('x-journal-abort', { image: '#c.qcow2' })).toMatchObject({
      undone: false,
      gone: [],
    });
    expect(await again.execute('x-query-journals')).toEqual([]);
    expect((await diskOf(bench)).equals(contentOf(SPEC))).toBe(true);
    await again.stop();
    const chain = Object.keys(SPEC).map((name) => `${name}.qcow2`);
    await judge(bench, 'disk.qcow2', chain, contentOf(SPEC));
  });

  it('that runs is nobody’s to give up', async () => {
    await using bench = new Bench();
    await makeChain(bench, SPEC);
    const served = await bench.disk('disk.qcow2');
    await served.execute('block-commit', commit('down', 'a', 'b', { speed: 1 }));
    await expect.poll(() => existsSync(bench.file('c.qcow2.downfold'))).toBe(true);
    expect(await served.execute('x-query-journals')).toEqual([]);
    expect(await refusal(served, 'x-journal-abort', { image: '#c.qcow2' })).toMatch(/no journal/);
  });
});

describe('filter-node-name', () => {
  it.each([
    ['block-commit', commit('j', 'a', 'b', { speed: 1 }), 'commit_top'],
    ['block-commit', { 'job-id': 'j', device: 'disk', 'base-node': node('f') }, 'mirror_top'],
    [
      'block-stream',
      { 'job-id': 'j', device: 'disk', 'base-node': node('d'), speed: 1 },
      'copy-on-read',
    ],
  ])('%s: a node is there while the job works (%#)', async (name, args, driver) => {
    await using bench = new Bench();
    await makeChain(bench, SPEC);
    const served = await bench.disk('disk.qcow2');
    const taken = { ...args, 'filter-node-name': 'disk' };
    expect(await refusal(served, name, taken)).toBe(
      "GenericError: Duplicate nodes with node-name='disk'",
    );
    await served.execute(name, { ...args, 'filter-node-name': 'filter' });
    const nodes =
      await served.execute<{ readonly 'node-name': string }[]>('query-named-block-nodes');
    expect(nodes.find((one) => one['node-name'] === 'filter')).toMatchObject({ drv: driver });
    expect(await refusal(served, 'blockdev-del', { 'node-name': 'filter' })).toMatch(
      /^GenericError: Node 'filter' is busy: job 'j'/,
    );
    await served.execute('job-cancel', { id: 'j' });
    await idle(served);
    const after =
      await served.execute<{ readonly 'node-name': string }[]>('query-named-block-nodes');
    expect(after.map((one) => one['node-name'])).not.toContain('filter');
  });
});
