import { byteLength } from '@downfold/units';
import { expect, it } from 'vitest';
import type { CommitPlan, PlanRequest, RunOptions } from '../src/index.ts';
import { plain } from './plain-strategy.ts';
import { CLUSTER } from './toy-format.ts';
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

it('deletes what lost its meaning when it is asked to', async () => {
  const { shop, plan } = await planned();
  const { deleted } = await shop.engine().run(plan, { deleteIntermediates: true });
  expect(deleted).toEqual(['/mid']);
  expect(await shop.files()).toEqual(['active', 'base', 'top']);
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
});
