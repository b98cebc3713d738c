import { LOSER, type LockRequest, READER, type StorageBackend, WRITER } from '@downfold/storage';
import { byteLength } from '@downfold/units';
import { expect, it } from 'vitest';
import type { PlanRequest } from '../src/index.ts';
import { CLUSTER } from './toy-format.ts';
import { Workshop } from './workshop.ts';

const REQUEST: PlanRequest = {
  file: '/active',
  format: 'toy',
  base: 'base',
  top: '/top',
  strategy: 'plain',
  checkpointBytes: byteLength(CLUSTER),
};

async function made(): Promise<Workshop> {
  const shop = new Workshop();
  await shop.make({
    '/low': { cells: 'dddd' },
    '/base': { cells: 'dd--', backing: 'low' },
    '/mid': { cells: '-dd-', backing: 'base' },
    '/top': { cells: '--dd', backing: 'mid' },
    '/active': { cells: '---d', backing: 'top' },
  });
  return shop;
}

/** A backend that notes what is locked, and how. */
function noting(shop: Workshop): {
  backend: StorageBackend;
  locked: Record<string, LockRequest>;
} {
  const locked: Record<string, LockRequest> = {};
  const backend: StorageBackend = {
    ...shop.backend,
    lock: async (path, request) => {
      locked[path] = request;
      return shop.backend.lock(path, request);
    },
  };
  return { backend, locked };
}

const AS_QEMU = {
  '/low': READER,
  '/base': WRITER,
  '/mid': LOSER,
  '/top': WRITER,
  '/active': WRITER,
};

it('locks as block-commit does: whom it writes, whose meaning it takes, whom it reads', async () => {
  const shop = await made();
  const plan = await shop.engine().plan(REQUEST);
  const { backend, locked } = noting(shop);
  await shop.engine({ backend }).run(plan);
  expect(locked).toEqual(AS_QEMU);
  for (const path of Object.keys(AS_QEMU)) {
    await using _free = await shop.backend.lock(path, LOSER);
  }
});

it('locks top down, as a chain is opened, and holds nothing below what is refused', async () => {
  const shop = await made();
  const plan = await shop.engine().plan(REQUEST);
  const { backend, locked } = noting(shop);
  {
    // somebody else has come down to it, to plan the same
    await using _planning = await shop.backend.lock('/top', READER);
    await expect(shop.engine({ backend }).run(plan)).rejects.toMatchObject({
      code: 'STORAGE_LOCKED',
      details: { file: '/top' },
    });
    expect(Object.keys(locked)).toEqual(['/active', '/top']);
  }
  await shop.engine({ backend }).run(plan);
  expect(Object.keys(locked)).toEqual(['/active', '/top', '/mid', '/base', '/low']);
});

it.each(Object.keys(AS_QEMU))(
  'is refused while another writes %s; nothing changes',
  async (path) => {
    const shop = await made();
    const plan = await shop.engine().plan(REQUEST);
    const before = shop.disk.digest();
    await using _writer = await shop.backend.lock(path, WRITER);
    const refusal = { code: 'STORAGE_LOCKED', details: { file: path } };
    await expect(shop.engine().run(plan)).rejects.toMatchObject(refusal);
    await expect(shop.engine().plan(REQUEST)).rejects.toMatchObject(refusal);
    expect(shop.disk.digest()).toBe(before);
  },
);

it.each(['resume', 'abort'] as const)('%s locks the same, and is refused', async (how) => {
  const shop = await made();
  const plan = await shop.engine().plan(REQUEST);
  const controller = new AbortController();
  const stopping = shop.engine().run(plan, {
    signal: controller.signal,
    onProgress: ({ phase, done }) => {
      if (phase === 'copy' && done > 0) controller.abort(new Error('stop'));
    },
  });
  await expect(stopping).rejects.toMatchObject({ code: 'COMMIT_CANCELLED' });
  const before = shop.disk.digest();
  {
    await using _writer = await shop.backend.lock('/base', WRITER);
    await expect(shop.engine()[how]('/active')).rejects.toMatchObject({ code: 'STORAGE_LOCKED' });
    expect(shop.disk.digest()).toBe(before);
  }
  const { backend, locked } = noting(shop);
  await shop.engine({ backend })[how]('/active');
  expect(locked).toEqual(AS_QEMU);
});
