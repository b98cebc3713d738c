import { type BitmapFacts, type Bitmaps, ImageError, type ImageFormat } from '@downfold/image';
import {
  type BackendDriver,
  openBackend,
  type StorageDriver,
  StorageError,
} from '@downfold/storage';
import { byteLength } from '@downfold/units';
import { describe, expect, it } from 'vitest';
import {
  assertNoJournal,
  type CommitPlan,
  type PlanRequest,
  type RunOptions,
} from '../src/index.ts';
import { plain } from './plain-strategy.ts';
import { CLUSTER, toy } from './toy-format.ts';
import { Workshop } from './workshop.ts';

const CHAIN = ['/base', '/mid', '/top', '/active'] as const;

const REQUEST: PlanRequest = {
  file: '/active',
  format: 'toy',
  base: 'base',
  top: '/top',
  strategy: 'plain',
  checkpointBytes: byteLength(2 * CLUSTER),
};

/** base <- mid <- top <- active, and a plan that commits mid and top into base, two clusters between checkpoints. */
async function planned(): Promise<{ shop: Workshop; plan: CommitPlan; before: readonly number[] }> {
  const shop = new Workshop();
  await shop.make({
    '/base': { cells: 'dddd--' },
    '/mid': { cells: '-d-d--', backing: 'base' },
    '/top': { cells: '--dz-d', backing: '/mid' },
    '/active': { cells: '-----d', backing: 'top' },
  });
  const before = await shop.shown(...CHAIN);
  const plan = await shop.engine().plan(REQUEST);
  return { shop, plan, before };
}

/** Aborts when so many bytes were copied. */
function stopAfter(bytes: number): RunOptions {
  const controller = new AbortController();
  return {
    signal: controller.signal,
    onProgress: ({ phase, done }) => {
      if (phase === 'copy' && done >= bytes) controller.abort(new Error('stop'));
    },
  };
}

it('measures how long a job may take only when asked to', async () => {
  const { shop, plan } = await planned();
  const unmeasured = await shop.engine().plan(REQUEST, { estimate: false });
  expect(plan.estimatedSeconds).toBeGreaterThan(0);
  expect(unmeasured).toEqual({ ...plan, estimatedSeconds: null });
});

it('says of all that lies plainly in a file that it will be read, before it is', async () => {
  const { shop, plan } = await planned();
  let announced = 0;
  const open: BackendDriver['open'] = async (path, mode) =>
    Object.assign(await shop.faults.open(path, mode), {
      willRead: (_offset: number, length: number) => {
        announced += length;
      },
    });
  await shop.engine({ backend: openBackend({ ...shop.faults, open }) }).run(plan);
  expect(announced).toBe(plan.bytesToCopy);
});

it('runs a plan: base shows what top showed, references lead to base, what lost its meaning is marked', async () => {
  const { shop, plan, before } = await planned();
  const result = await shop.engine().run(plan, { verify: true });
  expect(await shop.shown('/base', '/active')).toEqual(before);
  expect(await shop.head('/active')).toEqual({ backing: 'base', mark: null });
  // an absolute name stays absolute
  expect(await shop.head('/top')).toEqual({ backing: '/base', mark: null });
  expect(await shop.head('/mid')).toMatchObject({ mark: 'invalid' });
  expect(await shop.files()).toEqual(['active', 'base', 'mid', 'top']);
  expect(result).toMatchObject({
    operation: 'commit',
    strategy: 'plain',
    job: 'job-1',
    bytesCopied: 3 * CLUSTER,
    bytesZeroed: CLUSTER,
    bytesSkippedByResume: 0,
    invalidated: ['/mid'],
    unmarked: [],
    relinked: [
      { image: '/active', backing: 'base' },
      { image: '/top', backing: '/base' },
    ],
    verified: true,
    deleted: [],
  });
});

it('says at the end that all is moved, also when it goes on with a job that had moved all of it', async () => {
  const { shop, plan } = await planned();
  const said: string[] = [];
  const controller = new AbortController();
  const onProgress: RunOptions['onProgress'] = ({ phase, done, total }) => {
    if (phase === 'copy') said.push(`${done / CLUSTER} of ${total / CLUSTER}`);
    if (phase === 'relink') controller.abort(new Error('stop'));
  };
  const run = shop.engine().run(plan, { onProgress, signal: controller.signal });
  await expect(run).rejects.toMatchObject({ code: 'COMMIT_CANCELLED' });
  expect(said.at(-1)).toBe('4 of 4');
  said.length = 0;
  await shop.engine().resume('/active', { onProgress });
  expect(said.at(-1)).toBe('4 of 4');
});

it('copies runs that are longer than a piece', async () => {
  const shop = new Workshop();
  await shop.make({
    '/base': { cells: '-'.repeat(1100) },
    '/top': { cells: `-${'d'.repeat(1099)}`, backing: 'base' },
  });
  const before = await shop.shown('/base', '/top');
  const request = { file: '/top', format: 'toy', strategy: 'plain', emptyTop: true };
  const result = await shop.engine().run(await shop.engine().plan(request));
  expect(result.bytesCopied).toBe(1099 * CLUSTER);
  expect(await shop.shown('/base')).toEqual(before);
});

it('copies no more at once than the throttle says now, and whole clusters', async () => {
  const shop = new Workshop();
  await shop.make({
    '/base': { cells: '-'.repeat(64) },
    '/top': { cells: 'd'.repeat(64), backing: 'base' },
  });
  const before = await shop.shown('/base', '/top');
  const request = { file: '/top', format: 'toy', strategy: 'plain', emptyTop: false };
  const plan = await shop.engine().plan(request);
  const passed: number[] = [];
  let rate = 4.5 * CLUSTER;
  const throttle = {
    get atOnce() {
      return rate;
    },
    pass: async (bytes: number) => {
      if (bytes > 0) passed.push(bytes / CLUSTER);
      // a rate of less than a cluster, and then no limit
      if (passed.length === 5) rate = 1;
      if (passed.length === 10) rate = Number.POSITIVE_INFINITY;
    },
  };
  await shop.engine().run(plan, { throttle });
  expect(await shop.shown('/base')).toEqual(before);
  expect(passed.reduce((sum, clusters) => sum + clusters, 0)).toBe(64);
  expect(passed.slice(0, 5)).toEqual([4, 4, 4, 4, 4]);
  // what was gathered by the rate before goes first
  expect(Math.max(...passed.slice(6, 10))).toBe(1);
  expect(Math.max(...passed.slice(10))).toBeGreaterThan(4);
});

it('cuts what it copies at clusters, wherever that begins', async () => {
  const shop = new Workshop();
  await shop.make({
    '/base': { cells: '-'.repeat(64) },
    '/top': { cells: `-${'d'.repeat(63)}`, backing: 'base' },
  });
  const request = { file: '/top', format: 'toy', strategy: 'plain', emptyTop: false };
  const ends: number[] = [];
  const toyThatTells = {
    ...toy,
    open: async (...args: Parameters<typeof toy.open>) => {
      const image = await toy.open(...args);
      const { copyFrom } = image;
      return Object.assign(image, {
        copyFrom: async (...[pieces, options]: Parameters<typeof copyFrom>) => {
          ends.push(...pieces.map(({ offset, length }) => offset + length));
          await copyFrom(pieces, options);
        },
      });
    },
  };
  // a rate at which a piece is three clusters: the run begins inside of the first one
  const throttle = { atOnce: 3 * CLUSTER, pass: async () => {} };
  const engine = shop.engine({ formats: [toyThatTells] });
  await engine.run(await engine.plan(request), { throttle });
  expect(ends.length).toBeGreaterThan(1);
  expect(ends.slice(0, -1).filter((end) => end % (3 * CLUSTER) !== 0)).toEqual([]);
});

it('changes bitmaps once its journal says so, and tries again what storage refused', async () => {
  const shop = new Workshop();
  await shop.make({
    '/base': { cells: '-'.repeat(8) },
    '/top': { cells: 'd'.repeat(8), backing: 'base' },
  });
  const list: BitmapFacts[] = [];
  const calls: string[] = [];
  const call = async (name: string): Promise<void> => {
    const hasJournal = (await shop.files()).some((file) => file.endsWith('.downfold'));
    calls.push(`${name}${hasJournal ? '' : ' too early'}`);
    if (calls.length === 2) throw new StorageError('STORAGE_NO_SPACE', 'full');
  };
  const model = { name: 'b', granularity: CLUSTER, enabled: true, inconsistent: false };
  const bitmapsOf = (path: string): Partial<Bitmaps> => ({
    list: async () => (path === '/top' ? [model] : list),
    content: async () => ({
      granularity: CLUSTER,
      virtualSize: 8 * CLUSTER,
      bits: Uint8Array.of(0xff),
    }),
    assertCanAdd: async () => {},
    add: async () => {
      list.push(model);
      await call('add');
    },
    mark: () => call('mark'),
    pause: () => call('pause'),
    save: async () => (path === '/base' ? await call('save') : undefined),
  });
  const withBitmaps = {
    ...toy,
    open: async (...args: Parameters<typeof toy.open>) => {
      const image = await toy.open(...args);
      return Object.assign(image, { bitmaps: bitmapsOf(args[0].label) as Bitmaps });
    },
  };
  const engine = shop.engine({ formats: [withBitmaps] });
  const request = { file: '/top', format: 'toy', strategy: 'plain', emptyTop: false } as const;
  const plan = await engine.plan({ ...request, bitmaps: 'merge' });
  await engine.run(plan, { onFailure: async () => true });
  // after the failure, and at the end, when it could still be tried again
  expect(calls).toEqual(['add', 'mark', 'save', 'mark', 'pause', 'save']);
  expect(await shop.files()).toEqual(['base', 'top']);
});

it('deletes what lost its meaning when it is asked to', async () => {
  const { shop, plan } = await planned();
  const { deleted } = await shop.engine().run(plan, { deleteIntermediates: true });
  expect(deleted).toEqual(['/mid']);
  expect(await shop.files()).toEqual(['active', 'base', 'top']);
});

it('leaves what it may not delete, and says so; it deletes the mark beside what it deletes', async () => {
  const { shop, plan } = await planned();
  shop.faults.inject({ operation: 'remove', file: '/mid', code: 'STORAGE_ACCESS' });
  const kept = await shop.engine().run(plan, { deleteIntermediates: true });
  expect(kept).toMatchObject({ deleted: [], undeleted: [{ image: '/mid' }] });
  expect(await shop.files()).toEqual(['active', 'base', 'mid', 'top']);
  expect(await shop.head('/mid')).toMatchObject({ mark: 'invalid' });
  await expect(shop.engine().resume('/active')).rejects.toMatchObject({
    code: 'COMMIT_NO_JOURNAL',
  });

  const other = await planned();
  const markless: ImageFormat = {
    ...toy,
    open: async (storage, options) =>
      Object.assign(await toy.open(storage, options), {
        setMark: async () => {
          throw new ImageError('IMAGE_NO_ROOM', `${storage.label}: no room`);
        },
      }),
  };
  const engine = other.shop.engine({ formats: [markless] });
  await engine.run(other.plan, { deleteIntermediates: true });
  expect(await other.shop.files()).toEqual(['active', 'base', 'top']);
});

it('deletes nothing that its journal names and that does not bear its mark', async () => {
  const { shop, plan } = await planned();
  shop.faults.inject({ operation: 'remove', file: '/mid', code: 'STORAGE_IO' });
  const run = shop.engine().run(plan, { deleteIntermediates: true });
  await expect(run).rejects.toMatchObject({ code: 'COMMIT_STOPPED' });
  {
    const storage = await shop.backend.open('/mid', 'write');
    await using image = await toy.open(storage, { mode: 'write' });
    await image.setMark({ state: 'invalid', job: 'another', date: '2026-01-01T00:00:00.000Z' });
  }
  const { deleted, undeleted } = await shop.engine().resume('/active');
  expect([deleted, undeleted]).toEqual([
    [],
    [{ image: '/mid', why: expect.stringContaining('does not bear the mark of this job') }],
  ]);
  expect(await shop.files()).toContain('mid');
});

it('refuses a plan when an image is not as it was, and touches nothing', async () => {
  const { shop, plan, before } = await planned();
  {
    await using storage = await shop.backend.open('/mid', 'write');
    const byte = new Uint8Array([9]);
    await storage.write((5 * CLUSTER) as never, byte);
  }
  await expect(shop.engine().run(plan)).rejects.toMatchObject({
    code: 'COMMIT_CHANGED',
    details: { image: '/mid' },
  });
  expect(await shop.shown(...CHAIN)).toEqual(before);
  expect(await shop.files()).not.toContain('active.downfold');
});

it('stopped by its signal, it keeps a journal, and goes on from the last checkpoint', async () => {
  const { shop, plan, before } = await planned();
  const engine = shop.engine();
  await expect(engine.run(plan, stopAfter(2 * CLUSTER))).rejects.toMatchObject({
    code: 'COMMIT_CANCELLED',
  });
  expect(await shop.files()).toContain('active.downfold');
  expect(await shop.shown(...CHAIN)).toEqual(before);
  expect(await engine.journalOf('/active')).toMatchObject({ job: 'job-1', owner: { pid: 1 } });
  const again = { file: '/active', format: 'toy', strategy: 'plain' };
  await expect(engine.plan(again)).rejects.toMatchObject({ code: 'COMMIT_INTERRUPTED_BEFORE' });
  await expect(engine.run(plan)).rejects.toMatchObject({ code: 'COMMIT_INTERRUPTED_BEFORE' });
  const result = await engine.resume('/active', { verify: true });
  expect(result.bytesSkippedByResume).toBe(CLUSTER);
  expect(result.bytesCopied).toBe(2 * CLUSTER);
  expect(await shop.shown('/base', '/active')).toEqual(before);
  expect(await shop.files()).toEqual(['active', 'base', 'mid', 'top']);
  expect(await engine.journalOf('/active')).toBeNull();
});

it('given up, it marks base as a mixture, and all above reads as before', async () => {
  const { shop, plan, before } = await planned();
  const engine = shop.engine();
  await expect(engine.run(plan, stopAfter(CLUSTER))).rejects.toMatchObject({
    code: 'COMMIT_CANCELLED',
  });
  const result = await engine.abort('/active');
  expect(result).toMatchObject({ job: 'job-1', strategy: 'plain', undone: false });
  expect(result.mixed).toEqual(['/base', '/mid']);
  expect(await shop.head('/base')).toMatchObject({ mark: 'mixed' });
  expect(await shop.shown(...CHAIN)).toEqual(before);
  expect(await shop.files()).toEqual(['active', 'base', 'mid', 'top']);
  await expect(engine.resume('/active')).rejects.toMatchObject({ code: 'COMMIT_NO_JOURNAL' });
  await expect(engine.abort('/active')).rejects.toMatchObject({ code: 'COMMIT_NO_JOURNAL' });
});

it('leaves a job alone whose process still runs', async () => {
  const { shop, plan } = await planned();
  await expect(shop.engine().run(plan, stopAfter(1))).rejects.toThrow();
  const other = shop.engine({
    owner: { host: 'here', bootId: 'b1', pid: 2 },
    isAlive: ({ pid }) => pid === 1,
  });
  for (const attempt of [other.resume('/active'), other.abort('/active')])
    await expect(attempt).rejects.toMatchObject({ code: 'COMMIT_LIVE_OWNER' });
});

it('does not go on when a source was written to since, or with a strategy of another version', async () => {
  const { shop, plan } = await planned();
  await expect(shop.engine().run(plan, stopAfter(1))).rejects.toThrow();
  const newer = shop.engine({ strategies: [{ ...plain, version: 2 }] });
  await expect(newer.resume('/active')).rejects.toMatchObject({ code: 'COMMIT_UNKNOWN_STRATEGY' });
  {
    await using storage = await shop.backend.open('/mid', 'write');
    await storage.write((2 * CLUSTER) as never, new Uint8Array([9]));
  }
  await expect(shop.engine().resume('/active')).rejects.toMatchObject({ code: 'COMMIT_CHANGED' });
});

it('given up, it minds no change of what it only has to let be', async () => {
  const { shop, plan } = await planned();
  await expect(shop.engine().run(plan, stopAfter(1))).rejects.toThrow('stopped');
  {
    const storage = await shop.backend.open('/active', 'write');
    await using image = await toy.open(storage, { mode: 'write' });
    await image.resize(byteLength(8 * CLUSTER), { fill: null });
    await image.flush();
  }
  await expect(shop.engine().resume('/active')).rejects.toMatchObject({ code: 'COMMIT_CHANGED' });
  await shop.engine().abort('/active');
  expect(await shop.files()).toEqual(['active', 'base', 'mid', 'top']);
});

it('goes on from its own changes of a source: opening mended it, or it leaked before', async () => {
  const { shop, plan, before } = await planned();
  let isDirty = true;
  const mending: ImageFormat = {
    ...toy,
    open: async (storage, options) => {
      const image = await toy.open(storage, options);
      if (storage.label !== '/top' || options.mode !== 'write') return image;
      const touch = async (): Promise<number> => {
        const first = new Uint8Array(1);
        await storage.read(0 as never, first);
        await storage.write(0 as never, first);
        return 1;
      };
      if (isDirty) await touch();
      const mended = isDirty ? { mendedFrom: image.fingerprint } : {};
      isDirty = false;
      return Object.assign(image, { ...mended, reclaimLeaks: touch });
    },
  };
  const sourced = { ...plan, reads: [...plan.reads, plan.request.top] };
  const engine = shop.engine({ formats: [mending] });
  await expect(engine.run(sourced, stopAfter(1))).rejects.toThrow('stopped');
  await expect(engine.resume('/active', stopAfter(1))).rejects.toThrow('stopped');
  await engine.resume('/active');
  expect(await shop.shown('/base', '/active')).toEqual(before);
});

it('stops at a consistent point when the disk is full, and goes on when there is space', async () => {
  const { shop, plan, before } = await planned();
  shop.faults.inject({ operation: 'write', name: 'data', nth: 2, code: 'STORAGE_NO_SPACE' });
  await expect(shop.engine().run(plan)).rejects.toMatchObject({
    code: 'COMMIT_STOPPED',
    details: { code: 'STORAGE_NO_SPACE' },
  });
  expect(await shop.shown(...CHAIN)).toEqual(before);
  await shop.engine().resume('/active');
  expect(await shop.shown('/base', '/active')).toEqual(before);
});

it('goes on by itself when somebody says that the failure has passed', async () => {
  const { shop, plan, before } = await planned();
  shop.faults.inject({ operation: 'write', name: 'data', times: 2 });
  let asked = 0;
  const result = await shop.engine().run(plan, { onFailure: async () => ++asked < 9 });
  expect(asked).toBe(2);
  expect(result.strategy).toBe('plain');
  expect(await shop.shown('/base', '/active')).toEqual(before);
});

it('does not go on after a failed flush on the same boot, until the user says that all is well', async () => {
  const { shop, plan, before } = await planned();
  shop.faults.inject({ operation: 'flush', file: '/base', nth: 1 });
  await expect(shop.engine().run(plan)).rejects.toMatchObject({
    code: 'COMMIT_STOPPED',
    details: { code: 'STORAGE_FLUSH_FAILED' },
  });
  await expect(shop.engine().resume('/active')).rejects.toMatchObject({
    code: 'COMMIT_FLUSH_FAILED',
  });
  // a container has a host name of its own, and the page cache of all
  const elsewhere = shop.engine({ owner: { host: 'container', bootId: 'b1', pid: 1 } });
  await expect(elsewhere.resume('/active')).rejects.toMatchObject({ code: 'COMMIT_FLUSH_FAILED' });
  const rebooted = shop.engine({ owner: { host: 'here', bootId: 'b2', pid: 1 } });
  await rebooted.resume('/active');
  expect(await shop.shown('/base', '/active')).toEqual(before);
});

it('finds a difference before it relinks when it is told to verify', async () => {
  const { shop, plan, before } = await planned();
  const careless = {
    ...plain,
    steps: async function* (...given: Parameters<typeof plain.steps>) {
      for await (const batch of plain.steps(...given))
        yield batch.filter((step) => step.do !== 'zero');
    },
  };
  const engine = shop.engine({ strategies: [careless] });
  await expect(
    engine.run({ ...plan, reads: [...plan.reads, plan.request.top] }, { verify: true }),
  ).rejects.toMatchObject({
    code: 'COMMIT_VERIFY_FAILED',
    details: { image: '/base', offset: 3 * CLUSTER },
  });
  expect(await shop.shown(...CHAIN)).toEqual(before);
  expect(await shop.head('/active')).toEqual({ backing: 'top', mark: null });
  // whoever goes on finds it too, without being told to look
  await expect(engine.resume('/active')).rejects.toMatchObject({ code: 'COMMIT_VERIFY_FAILED' });
  const { mixed } = await engine.abort('/active');
  expect(mixed).toEqual(['/base', '/mid']);
  expect(await shop.shown(...CHAIN)).toEqual(before);
});

/** Jobs of this chain, which may take what others read. */
const LOSING: PlanRequest = { ...REQUEST, invalidateSiblings: true };

/** The same chain, and b, which reads through base too. */
async function withSibling(): Promise<{ shop: Workshop; plan: CommitPlan }> {
  const { shop } = await planned();
  await shop.make({ '/b': { cells: '--d---', backing: 'base' } });
  return { shop, plan: await shop.engine().plan(LOSING) };
}

it('is not begun while the journal of another image of the pool tells of a job that changes base', async () => {
  const { shop, plan } = await withSibling();
  await expect(shop.engine().run(plan, stopAfter(CLUSTER))).rejects.toThrow('stopped');
  const other: PlanRequest = { ...LOSING, file: '/b', top: '/b', base: undefined };
  await expect(shop.engine().plan(other)).rejects.toMatchObject({
    code: 'COMMIT_INTERRUPTED_BEFORE',
    details: { image: '/active' },
  });
  const beside = shop.engine({
    owner: { host: 'here', bootId: 'b1', pid: 2 },
    isAlive: ({ pid }) => pid === 1,
  });
  await expect(beside.plan(other)).rejects.toMatchObject({ code: 'COMMIT_LIVE_OWNER' });
  await expect(assertNoJournal(shop.backend, '/base')).rejects.toMatchObject({
    code: 'COMMIT_INTERRUPTED_BEFORE',
    details: { image: '/active' },
  });
  await shop.engine().resume('/active');
  await assertNoJournal(shop.backend, '/base');
});

it('runs beside a job of another chain that only reads the same images, interrupted or not', async () => {
  const shop = new Workshop();
  await shop.make({
    '/golden': { cells: 'dddd' },
    '/a': { cells: '-d--', backing: 'golden' },
    '/a1': { cells: '--d-', backing: 'a' },
    '/b': { cells: 'd---', backing: 'golden' },
    '/b1': { cells: '---d', backing: 'b' },
  });
  const commit = (file: string): PlanRequest => ({
    file,
    format: 'toy',
    strategy: 'plain',
    checkpointBytes: byteLength(2 * CLUSTER),
  });
  const engine = shop.engine();
  await expect(engine.run(await engine.plan(commit('/a1')), stopAfter(1))).rejects.toThrow();
  const before = await shop.shown('/golden', '/b', '/b1');
  await engine.run(await engine.plan(commit('/b1')));
  expect(await shop.shown('/golden', '/b')).toEqual(before);
  // golden is only read by both
  await assertNoJournal(shop.backend, '/golden');
  await engine.resume('/a1');
});

it('is not held up by what only looks like a journal, or is not ours to read', async () => {
  const { shop, plan, before } = await planned();
  shop.disk.makeDirectory('/backup.downfold');
  await shop.make({ '/other': { cells: 'd' } });
  const storage = await shop.backend.create('/other.downfold', { secret: true });
  await storage[Symbol.asyncDispose]();
  shop.faults.inject({
    operation: 'open',
    file: '/other.downfold',
    code: 'STORAGE_ACCESS',
    times: 99,
  });
  await shop.engine().run(plan);
  expect(await shop.shown('/base', '/active')).toEqual(before);
});

const FLUSH_FAILED = { code: 'COMMIT_STOPPED', details: { code: 'STORAGE_FLUSH_FAILED' } };

/** The same driver, whose files of some paths have other members. */
function changed(
  driver: BackendDriver,
  membersOf: (path: string, file: StorageDriver) => Partial<StorageDriver>,
): BackendDriver {
  return {
    ...driver,
    open: async (path, mode) => {
      const file = await driver.open(path, mode);
      const members = membersOf(path, file);
      return new Proxy(file, {
        get: (of, key) => {
          if (key in members) return Reflect.get(members, key);
          const value: unknown = Reflect.get(of, key, of);
          return typeof value === 'function' ? value.bind(of) : value;
        },
      });
    },
  };
}

/** The same files, which take their time to flush. */
function slowToFlush(driver: BackendDriver): BackendDriver {
  return changed(driver, (_path, file) => ({
    flush: async (barrier) => {
      await new Promise((resolve) => setTimeout(resolve, 20));
      await file.flush(barrier);
    },
  }));
}

describe('a flush that fails is final', () => {
  it('when it makes durable what was copied before the job was cancelled', async () => {
    const { shop, plan } = await planned();
    shop.faults.inject({ operation: 'flush', file: '/base', nth: 1 });
    await expect(shop.engine().run(plan, stopAfter(1))).rejects.toMatchObject(FLUSH_FAILED);
    await expect(shop.engine().resume('/active')).rejects.toMatchObject({
      code: 'COMMIT_FLUSH_FAILED',
    });
  });

  it('when it fails in the background, after a write failed beside it', async () => {
    const { shop, plan } = await planned();
    shop.faults.inject({ operation: 'flush', file: '/base', nth: 1 });
    shop.faults.inject({ operation: 'write', name: 'data', nth: 2 });
    let asked = 0;
    const engine = shop.engine({ backend: openBackend(slowToFlush(shop.faults)) });
    const options = { onFailure: async () => ++asked < 9 };
    await expect(engine.run(plan, options)).rejects.toMatchObject(FLUSH_FAILED);
    expect(shop.faults.fired.map(({ operation }) => operation)).toEqual(['write', 'flush']);
    expect(asked).toBe(0);
  });

  it('when a job is gone on with: what the process before wrote may be lost', async () => {
    const { shop, plan } = await planned();
    await expect(shop.engine().run(plan, stopAfter(1))).rejects.toThrow('stopped');
    shop.faults.inject({ operation: 'flush', file: '/base', nth: 1 });
    await expect(shop.engine().resume('/active')).rejects.toMatchObject(FLUSH_FAILED);
    await expect(shop.engine().resume('/active')).rejects.toMatchObject({
      code: 'COMMIT_FLUSH_FAILED',
    });
  });

  it('of the journal, whatever it was to hold: nobody goes on from what may not be on the disk', async () => {
    for (const name of ['journal: INVALIDATES', 'journal: PROGRESS', 'journal: SWITCH']) {
      const { shop, plan, before } = await planned();
      shop.faults.inject({ operation: 'flush', name });
      await expect(shop.engine().run(plan), name).rejects.toMatchObject(FLUSH_FAILED);
      await expect(shop.engine().resume('/active'), name).rejects.toMatchObject({
        code: 'COMMIT_FLUSH_FAILED',
      });
      const rebooted = shop.engine({ owner: { host: 'here', bootId: 'b2', pid: 1 } });
      await rebooted.resume('/active');
      expect(await shop.shown('/base', '/active'), name).toEqual(before);
    }
  });

  it('of the journal before it says what it is for: there is no job', async () => {
    for (const fault of [
      { operation: 'flush', name: 'journal: INTENT' },
      { operation: 'flushDirectory', name: 'journal: its name before the first change' },
    ] as const) {
      const { shop, plan } = await planned();
      shop.faults.inject(fault);
      await expect(shop.engine().run(plan)).rejects.toMatchObject({ code: 'STORAGE_FLUSH_FAILED' });
      expect(await shop.files()).toEqual(['active', 'base', 'mid', 'top']);
    }
  });

  it('of the journal when it is found', async () => {
    const { shop, plan } = await planned();
    await expect(shop.engine().run(plan, stopAfter(1))).rejects.toThrow('stopped');
    shop.faults.inject({ operation: 'flush', name: 'journal: what was found' });
    await expect(shop.engine().resume('/active')).rejects.toMatchObject({
      code: 'STORAGE_FLUSH_FAILED',
    });
    await expect(shop.engine().resume('/active')).rejects.toMatchObject({
      code: 'COMMIT_FLUSH_FAILED',
    });
  });

  it('of a directory: nobody is asked whether it has passed', async () => {
    const { shop, plan } = await planned();
    shop.faults.inject({ operation: 'flushDirectory' });
    let asked = 0;
    const options = { onFailure: async () => ++asked < 9 };
    await expect(shop.engine().run(plan, options)).rejects.toMatchObject({
      code: 'STORAGE_FLUSH_FAILED',
    });
    expect(asked).toBe(0);
  });

  it('also for who gives the job up: nothing is given back that the disk may still refer to', async () => {
    const { shop, plan, before } = await planned();
    const asked: string[] = [];
    const watched: ImageFormat = {
      ...toy,
      open: async (storage, options) => {
        const image = await toy.open(storage, options);
        return Object.assign(image, {
          reclaimLeaks: async () => {
            asked.push(storage.label);
            return 0;
          },
        });
      },
    };
    shop.faults.inject({ operation: 'flush', file: '/base', nth: 1 });
    await expect(shop.engine().run(plan)).rejects.toMatchObject(FLUSH_FAILED);
    await shop.engine({ formats: [watched] }).abort('/active');
    expect(asked).toEqual([]);
    expect(await shop.shown(...CHAIN)).toEqual(before);
  });
});

it('given up, it says what could not be marked, and ends all the same', async () => {
  const { shop, plan } = await withSibling();
  await expect(shop.engine().run(plan, stopAfter(CLUSTER))).rejects.toThrow('stopped');
  await shop.backend.remove('/b');
  const result = await shop.engine().abort('/active');
  expect(result.mixed).toEqual(['/base', '/mid']);
  expect(result.unmarked).toMatchObject([{ image: '/b' }]);
  expect(await shop.files()).toEqual(['active', 'base', 'mid', 'top']);
});

it('refuses a base that cannot grow before anything says that it changes', async () => {
  const shop = new Workshop();
  await shop.make({ '/base': { cells: 'dd' }, '/top': { cells: '--dd', backing: 'base' } });
  let mode = 'read';
  const rigid: ImageFormat = {
    ...toy,
    open: async (storage, options) =>
      Object.assign(await toy.open(storage, options), {
        assertCanGrow: () => {
          if (options.mode === mode)
            throw new ImageError('IMAGE_LIMIT', `${storage.label}: too large`);
        },
      }),
  };
  const engine = shop.engine({ formats: [rigid] });
  const request = { file: '/top', format: 'toy', strategy: 'plain' };
  await expect(engine.plan(request)).rejects.toMatchObject({ code: 'IMAGE_LIMIT' });
  // a plan that somebody made before
  mode = 'write';
  const plan = await engine.plan(request);
  await expect(engine.run(plan)).rejects.toMatchObject({ code: 'IMAGE_LIMIT' });
  expect(await shop.files()).toEqual(['base', 'top']);
  expect(await shop.head('/base')).toMatchObject({ mark: null });
});

it('keeps the mark of a mixture on base when what is committed is one itself', async () => {
  const { shop, plan } = await planned();
  await expect(shop.engine().run(plan, stopAfter(CLUSTER))).rejects.toThrow('stopped');
  await shop.engine().abort('/active');
  const engine = shop.engine();
  await engine.run(await engine.plan({ ...REQUEST, top: '/mid' }));
  expect(await shop.head('/base')).toMatchObject({ mark: 'mixed' });
  await engine.run(await engine.plan({ ...REQUEST, top: '/top' }));
  expect(await shop.head('/base')).toMatchObject({ mark: null });
});

describe('a block device', () => {
  const identity = { device: '7', inode: '0' };

  /** The same files, one of them a device that says nothing of itself. */
  const nameless = (driver: BackendDriver, device: string): BackendDriver => ({
    ...changed(driver, (path) => (path === device ? { identity } : {})),
    facts: async (path) => {
      const facts = await driver.facts(path);
      return path === device ? { ...facts, kind: 'block-device', identity } : facts;
    },
  });

  it('without a name of its own may be another one after a start of the machine: no job goes on', async () => {
    const { shop } = await planned();
    const backend = openBackend(nameless(shop.faults, '/base'));
    const engine = shop.engine({ backend });
    await expect(engine.run(await engine.plan(REQUEST), stopAfter(CLUSTER))).rejects.toMatchObject({
      code: 'COMMIT_CANCELLED',
    });
    const rebooted = shop.engine({ backend, owner: { host: 'here', bootId: 'b2', pid: 1 } });
    const refused = { code: 'COMMIT_CHANGED', details: { image: '/base' } };
    await expect(rebooted.resume('/active')).rejects.toMatchObject(refused);
    await expect(rebooted.abort('/active')).rejects.toMatchObject(refused);
    await engine.resume('/active');
  });

  it('is no leaf of a job: nothing beside it outlives the next start of the machine', async () => {
    const { shop } = await planned();
    const engine = shop.engine({ backend: openBackend(nameless(shop.faults, '/active')) });
    await expect(engine.plan(REQUEST)).rejects.toMatchObject({
      code: 'COMMIT_UNSUPPORTED',
      details: { image: '/active' },
    });
  });
});
