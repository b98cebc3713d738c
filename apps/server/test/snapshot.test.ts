import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import type { ChainLayer } from '@downfold/chain';
import { connectNbd } from '@downfold/nbd';
import { READER } from '@downfold/storage';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { Graph } from '../src/graph/graph.ts';
import { openForReading } from '../src/graph/open.ts';
import { snapshotSync } from '../src/graph/snapshot.ts';
import {
  access,
  asDisk,
  Bench,
  contentOf,
  haveAll,
  LOCKS,
  lockedBytes,
  MIB,
  makeChain,
  serve,
  WHOSE,
  WRITABLE,
} from './support.ts';

/** A graph with a chain whose leaf, `top`, is the disk `disk`. */
async function graphOf(bench: Bench): Promise<Graph> {
  await makeChain(bench);
  const graph = new Graph(access());
  await graph.addDisk('disk', bench.file('top.qcow2'), 'qcow2');
  return graph;
}

it('what fails once the overlay is the active layer leaves it there: it may hold what clients wrote', async () => {
  await using bench = new Bench();
  await using graph = await graphOf(bench);
  const { disk } = graph.root('disk');
  const user = { label: 'a guest', job: null };
  await disk.use(user, { writes: true });
  const change = disk.locks.change.bind(disk.locks);
  disk.locks.change = async (path, request) => {
    // the last step of all: the lock of what was the active layer is lowered
    if (request === READER) throw new Error('no more locks');
    return await change(path, request);
  };
  const file = bench.file('overlay.qcow2');
  const how = { file, nodeName: 'overlay', format: 'qcow2', existing: false } as const;
  await expect(snapshotSync(graph, 'disk', how)).rejects.toThrow('no more locks');
  disk.locks.change = change;
  expect(disk.active.facts.path).toBe(file);
  expect(existsSync(file)).toBe(true);
  disk.release(user);
});

it('what fails before takes away what was made', async () => {
  await using bench = new Bench();
  await using graph = await graphOf(bench);
  const { disk } = graph.root('disk');
  const before = disk.active.facts.path;
  const claim = { consumes: [before], relinks: [], stands: [] };
  const job = { label: 'a job', job: { id: 'j', type: 'stream', claim } } as const;
  await disk.use(job, { writes: false });
  const file = bench.file('overlay.qcow2');
  const how = { file, nodeName: 'overlay', format: 'qcow2', existing: false } as const;
  await expect(snapshotSync(graph, 'disk', how)).rejects.toMatchObject({ code: 'SERVER_IN_USE' });
  expect(disk.active.facts.path).toBe(before);
  expect(existsSync(file)).toBe(false);
  expect(graph.find('overlay')).toBeUndefined();
  disk.release(job);
});

it('goes onto the layers that are there by then: a job may have changed them meanwhile', async () => {
  await using bench = new Bench();
  await using graph = await graphOf(bench);
  const { disk } = graph.root('disk');
  const user = { label: 'a reader', job: null };
  await disk.use(user, { writes: false });
  const [base] = disk.layers as [ChainLayer];
  const again = await openForReading(base, disk.environment);
  const go = Promise.withResolvers<void>();
  const changed = disk.live().drained(async (section) => {
    await go.promise;
    await section.replace([again, ...section.layers.slice(1)]);
  });
  const file = bench.file('overlay.qcow2');
  const covered = snapshotSync(graph, 'disk', {
    ...{ file, nodeName: 'overlay', format: 'qcow2', existing: false },
  });
  // it waits behind the section by then
  await new Promise((resolve) => setTimeout(resolve, 300));
  go.resolve();
  await Promise.all([changed, covered]);
  expect(disk.layers[0]?.image).toBe(again.image);
  expect(disk.active.facts.path).toBe(file);
  disk.release(user);
  await base.image[Symbol.asyncDispose]();
});

it.skipIf(!haveAll('perl'))(
  'what it covered stays open for writing while a job is to relink it, and no longer',
  async () => {
    await using bench = new Bench();
    await makeChain(bench);
    const served = await bench.disk('top.qcow2');
    await served.execute('block-commit', {
      ...{ 'job-id': 'j', device: 'disk', speed: MIB / 16 },
      ...{ 'top-node': '#mid.qcow2', 'base-node': '#base.qcow2' },
    });
    await served.execute('blockdev-snapshot-sync', {
      device: 'disk',
      'snapshot-file': bench.file('overlay.qcow2'),
      'snapshot-node-name': 'overlay',
    });
    expect(await lockedBytes(bench, 'top.qcow2')).toEqual(LOCKS.WRITER);
    await served.execute('block-job-set-speed', { device: 'j', speed: 0 });
    await served.until('null');
    expect(await lockedBytes(bench, 'top.qcow2')).toEqual(LOCKS.READER);
    expect(await served.execute('query-named-block-nodes', { flat: true })).toContainEqual(
      expect.objectContaining({ 'node-name': 'disk', ro: true }),
    );
    await using client = await connectNbd({
      server: { path: bench.file('run/nbd.sock') },
      name: '',
    });
    const disk = Buffer.alloc(16 * MIB);
    await client.write(0, Buffer.alloc(100, 'after'));
    await client.read(0, disk);
    const expected = contentOf();
    expected.fill('after', 0, 100);
    expect(disk.equals(expected)).toBe(true);
    expect((await served.stop()).code).toBe(0);
  },
);

describe('a transaction', () => {
  const sync = (bench: Bench, node: string, name: string): object => ({
    type: 'blockdev-snapshot-sync',
    data: {
      'node-name': node,
      'snapshot-file': bench.file(`${name}.qcow2`),
      'snapshot-node-name': name,
    },
  });

  it.each(WHOSE)('of one action, by %s, is that action; of none it is nothing', async (whose) => {
    await using bench = new Bench();
    await makeChain(bench);
    const served = await serve(bench, whose, ...asDisk(bench, 'top.qcow2'), ...WRITABLE);
    const transact = (...actions: readonly object[]): Promise<unknown> =>
      served.execute('transaction', { actions });
    await transact();
    await transact(sync(bench, 'disk', 's1'));
    await expect(transact(sync(bench, 'nope', 's2'))).rejects.toThrow(/node-name='nope'/);
    await expect(transact({ type: 'bogus' })).rejects.toThrow(
      "Parameter 'type' does not accept value 'bogus'",
    );
    expect(existsSync(bench.file('s1.qcow2'))).toBe(true);
    expect(existsSync(bench.file('s2.qcow2'))).toBe(false);
  });

  it('of several actions is refused, and none of them is done', async () => {
    await using bench = new Bench();
    await makeChain(bench);
    const served = await bench.disk('top.qcow2');
    const actions = [sync(bench, 'disk', 's1'), sync(bench, 's1', 's2')];
    await expect(served.execute('transaction', { actions })).rejects.toThrow(/one by one/);
    expect(existsSync(bench.file('s1.qcow2'))).toBe(false);
  });
});

describe('an overlay that could not be made', () => {
  const file = 'overlay.qcow2';
  // all graphs have one backend
  afterEach(() => void vi.restoreAllMocks());

  /** What a snapshot on a new file is refused with. */
  async function refusal(bench: Bench, graph: Graph): Promise<unknown> {
    const how = {
      file: bench.file(file),
      nodeName: 'overlay',
      format: 'qcow2',
      existing: false,
    } as const;
    return snapshotSync(graph, 'disk', how).catch((cause) => cause);
  }

  it.each(['its bytes', 'its name'])('leaves nothing behind: %s', async (what) => {
    await using bench = new Bench();
    await using graph = await graphOf(bench);
    const { backend } = graph.root('disk').disk.environment;
    const full = new Error('no space left');
    const create = vi.spyOn(backend, 'create').mockImplementation(async (...args) => {
      create.mockRestore();
      const storage = await backend.create(...args);
      if (what === 'its bytes') vi.spyOn(storage, 'flush').mockRejectedValue(full);
      return storage;
    });
    if (what === 'its name') vi.spyOn(backend, 'flushDirectory').mockRejectedValueOnce(full);
    expect(await refusal(bench, graph)).toBe(full);
    expect(existsSync(bench.file(file))).toBe(false);
    expect(await refusal(bench, graph)).toBeNull();
  });

  it('was there before, and stays', async () => {
    await using bench = new Bench();
    await using graph = await graphOf(bench);
    writeFileSync(bench.file(file), 'precious');
    expect(await refusal(bench, graph)).toMatchObject({ code: 'STORAGE_EXISTS' });
    expect(readFileSync(bench.file(file), 'utf8')).toBe('precious');
  });
});
