import { defaultPolicy, openChain, viewOf } from '@downfold/chain';
import type { CommitError, PlanRequest, RunOptions } from '@downfold/commit';
import { type CaseContext, caseContext, perTier } from '@downfold/compliance';
import type { Device } from '@downfold/device';
import { qcow2 } from '@downfold/qcow2';
import {
  type BackendDriver,
  LOSER,
  openBackend,
  READER,
  type StorageBackend,
  type StorageDriver,
  WRITER,
} from '@downfold/storage';
import { MemoryDisk, memoryBackendDriver } from '@downfold/storage-memory';
import { byteLength, guestOffset } from '@downfold/units';
import { describe, expect, test } from 'vitest';
import { engineOn } from '../src/crash/case.ts';
import { SECTOR } from '../src/device/stamp.ts';
import { makeTower, randomStoreys, type Storey } from '../src/live/tower.ts';
import { STRATEGIES } from '../src/live/trial.ts';
import { useDisk } from '../src/live/world.ts';

const SIZE = 128 * 1024;
const NAMES = ['a', 'b', 'c', 'd', 'e', 'f', 'disk'] as const;
const at = (name: string): string => `/${name}.qcow2`;
const PATHS = NAMES.map(at);

/** Layers whose clusters differ, so that d and disk take from below what is not copied of a cluster. */
const STOREYS: readonly Storey[] = [
  { name: 'a', clusterSize: 4096, holds: [[0, 256]] },
  {
    name: 'b',
    clusterSize: 4096,
    holds: [
      [8, 8],
      [64, 16],
      [104, 8],
    ],
  },
  {
    name: 'c',
    clusterSize: 512,
    holds: [
      [12, 1],
      [30, 3],
      [100, 1],
    ],
  },
  { name: 'd', clusterSize: 16_384, holds: [[33, 1]] },
  {
    name: 'e',
    clusterSize: 512,
    holds: [
      [10, 1],
      [66, 2],
      [106, 1],
    ],
  },
  {
    name: 'f',
    clusterSize: 512,
    holds: [
      [12, 1],
      [70, 1],
    ],
  },
  { name: 'disk', clusterSize: 4096, holds: [[200, 1]] },
];

/** A file backend in memory whose reads can be held up. */
class Held {
  readonly backend: StorageBackend;
  hold: ((path: string) => Promise<void> | undefined) | null = null;

  constructor() {
    const driver = memoryBackendDriver(new MemoryDisk());
    const wrapped = new Proxy(driver, {
      get: (target, key) => {
        const value = Reflect.get(target, key) as unknown;
        if (key === 'open')
          return async (...args: Parameters<BackendDriver['open']>) =>
            this.#slow(args[0], await target.open(...args));
        return typeof value === 'function' ? value.bind(target) : value;
      },
    });
    this.backend = openBackend(wrapped);
  }

  #slow(path: string, file: StorageDriver): StorageDriver {
    return new Proxy(file, {
      get: (target, key) => {
        const value = Reflect.get(target, key) as unknown;
        if (key === 'read')
          return async (...args: Parameters<StorageDriver['read']>) => {
            await this.hold?.(path);
            return target.read(...args);
          };
        return typeof value === 'function' ? value.bind(target) : value;
      },
    });
  }
}

async function shown(device: Device): Promise<Buffer> {
  const bytes = Buffer.alloc(SIZE);
  await device.read(guestOffset(0), bytes);
  return bytes;
}

/** Says where they differ: of large buffers a difference takes minutes to be printed. */
function same(found: Buffer, wanted: Buffer, what = ''): void {
  const at = found.findIndex((byte, index) => byte !== wanted[index]);
  expect(at, `${what} first byte that differs`).toBe(-1);
}

/** What the files alone show, opened by their references. */
async function onDisk(backend: StorageBackend, path = at('disk')): Promise<Buffer> {
  const policy = { ...defaultPolicy, allowMarked: true, locks: 'none' as const };
  const environment = { backend, formats: [qcow2], policy };
  await using chain = await openChain(path, 'qcow2', environment);
  for (const { image } of chain.layers)
    expect(await image.check()).toMatchObject({ corruptions: 0, leaks: 0 });
  const bytes = Buffer.alloc(SIZE);
  await viewOf(chain.layers, chain.layers.length - 1)(guestOffset(0), bytes);
  return bytes;
}

type Request = Pick<PlanRequest, 'file' | 'base' | 'top' | 'strategy'>;
const DOWN: Request = { file: at('c'), base: at('a'), top: at('b'), strategy: 'depth-first' };
const UP: Request = { file: at('disk'), base: at('c'), strategy: 'stream' };
const MIDDLE: Request = { file: at('f'), base: at('d'), top: at('e'), strategy: 'copy-down' };

let boots = 0;

async function run(
  backend: StorageBackend,
  live: Device,
  request: Request,
  options: RunOptions = {},
): Promise<unknown> {
  const engine = engineOn(backend, ++boots, STRATEGIES);
  // each sector is copied by itself: what is gathered would be one piece
  const checkpointBytes = byteLength(1024);
  const whole = { ...request, format: 'qcow2', checkpointBytes };
  const plan = await engine.plan(whole, { live, estimate: false });
  return engine.run(plan, { live, ...options });
}

/** Stops when all its data is in place, and says so, until it is let go. */
function gate(): { options: RunOptions; reached: Promise<void>; open: () => void } {
  const reached = Promise.withResolvers<void>();
  const opened = Promise.withResolvers<void>();
  const beforeSwitch = (): Promise<void> => {
    reached.resolve();
    return opened.promise;
  };
  return { options: { beforeSwitch }, reached: reached.promise, open: () => opened.resolve() };
}

/** Stops before its nth piece is copied, and says so, until it is let go. */
function passGate(nth: number): ReturnType<typeof gate> {
  const { options, reached, open } = gate();
  let passes = 0;
  const pass = async (): Promise<void> => {
    if (++passes === nth) await options.beforeSwitch?.();
  };
  return { options: { throttle: { pass } }, reached, open };
}

const labels = ({ layers }: Device): readonly string[] => layers.map(({ image }) => image.label);

describe('two jobs beneath one disk', () => {
  test.each([
    ['the lower one begins and ends inside the upper one', UP, DOWN],
    ['the upper one begins and ends inside the lower one', DOWN, UP],
    ['a commit onto the middle around one below it', MIDDLE, DOWN],
    ['a commit below around one onto the middle', DOWN, MIDDLE],
  ])('%s', async (_what, outer, inner) => {
    const { backend } = new Held();
    await makeTower(backend, SIZE, STOREYS);
    await using world = await useDisk(backend, PATHS);
    const { device } = world;
    const before = await shown(device);
    const stop = gate();
    const first = run(backend, device, outer, stop.options);
    await stop.reached;
    // what one of them writes is locked for it alone all the while
    const isFree = async (path: string): Promise<boolean> => {
      const lock = await backend.lock(path, READER).catch(() => null);
      await lock?.[Symbol.asyncDispose]();
      return lock !== null;
    };
    const written = at(outer === MIDDLE ? 'd' : outer === DOWN ? 'c' : 'disk');
    const beforeSwitch = async (): Promise<void> => expect(await isFree(written)).toBe(false);
    await run(backend, device, inner, { beforeSwitch });
    expect(await isFree(written)).toBe(false);
    same(await shown(device), before);
    stop.open();
    await first;
    same(await shown(device), before);
    const both = [outer, inner];
    const gone = both.includes(UP) ? ['b', 'd', 'e', 'f'] : ['b', 'e'];
    expect(labels(device)).toEqual(PATHS.filter((path) => !gone.map(at).includes(path)));
    expect(device.layers.filter(({ image }) => image.writable)).toHaveLength(1);
    for (const path of PATHS) await assertLock(backend, path, labels(device));
    await device.flush();
    same(await onDisk(backend), before);
  });

  test.each([
    ['a commit onto the middle', MIDDLE],
    ['a stream', UP],
  ])(
    '%s copies, and what it reads through is another chain before it goes on',
    async (_what, upper) => {
      const { backend } = new Held();
      await makeTower(backend, SIZE, STOREYS);
      await using world = await useDisk(backend, PATHS);
      const { device } = world;
      const before = await shown(device);
      const at2 = passGate(2);
      const up = run(backend, device, upper, at2.options);
      await at2.reached;
      await run(backend, device, DOWN);
      at2.open();
      await up;
      same(await shown(device), before);
      await device.flush();
      same(await onDisk(backend), before);
    },
  );

  test('a plan is run after what it stands on was relinked', async () => {
    const { backend } = new Held();
    await makeTower(backend, SIZE, STOREYS);
    await using world = await useDisk(backend, PATHS);
    const { device } = world;
    const before = await shown(device);
    const engine = engineOn(backend, ++boots, STRATEGIES);
    const plan = await engine.plan({ ...UP, format: 'qcow2' }, { live: device, estimate: false });
    await run(backend, device, DOWN);
    await engine.run(plan, { live: device });
    same(await shown(device), before);
    expect(labels(device)).toEqual(['a', 'c', 'disk'].map(at));
  });

  test('what one reads through is not closed before it has been read', async () => {
    const held = new Held();
    const { backend } = held;
    await makeTower(backend, SIZE, STOREYS);
    await using world = await useDisk(backend, PATHS);
    const { device } = world;
    const before = await shown(device);
    // the copy into d completes a large cluster with what lies below, and is held up on its way through c
    const reading = gate();
    const pass = async (): Promise<void> => {
      held.hold = (path) => (path === at('c') ? reading.options.beforeSwitch?.() : undefined);
    };
    const up = run(backend, device, MIDDLE, { throttle: { pass } });
    await reading.reached;
    held.hold = null;
    // it opens a and b for writing, puts them there, and closes those that were open for reading
    const down = run(backend, device, DOWN);
    await new Promise((next) => setTimeout(next, 200));
    reading.open();
    await Promise.all([up, down]);
    same(await shown(device), before);
    await device.flush();
    same(await onDisk(backend), before);
  });

  test.each([
    ['beneath the disk', true],
    ['with nobody using it', false],
  ])('one is stopped, the other is done, and the first goes on, %s', async (_what, isLive) => {
    const { backend } = new Held();
    await makeTower(backend, SIZE, STOREYS);
    const before = await (async () => {
      await using world = await useDisk(backend, PATHS);
      const seen = await shown(world.device);
      await stopped(run(backend, world.device, UP, stopping()));
      await run(backend, world.device, DOWN);
      if (!isLive) return seen;
      const engine = engineOn(backend, ++boots, STRATEGIES);
      await engine.resume(at('disk'), { live: world.device });
      same(await shown(world.device), seen);
      return seen;
    })();
    if (!isLive) await engineOn(backend, ++boots, STRATEGIES).resume(at('disk'));
    same(await onDisk(backend), before);
  });

  test('a commit onto the middle is gone on with by nobody’s disk: what lies below is found by its reference', async () => {
    const { backend } = new Held();
    await makeTower(backend, SIZE, STOREYS);
    const before = await (async () => {
      await using world = await useDisk(backend, PATHS);
      const seen = await shown(world.device);
      await stopped(run(backend, world.device, MIDDLE, stoppingEarly()));
      await run(backend, world.device, DOWN);
      return seen;
    })();
    await engineOn(backend, ++boots, STRATEGIES).resume(at('f'));
    same(await onDisk(backend), before);
  });

  test('a plan that touches what an interrupted one does is refused, also from above', async () => {
    const { backend } = new Held();
    await makeTower(backend, SIZE, STOREYS);
    await using world = await useDisk(backend, PATHS);
    await stopped(run(backend, world.device, DOWN, stopping()));
    const again = { ...DOWN, file: at('disk') };
    expect((await stopped(run(backend, world.device, again))).code).toBe(
      'COMMIT_INTERRUPTED_BEFORE',
    );
  });

  test('a plan for a disk in use has nothing of what lies below base', async () => {
    const { backend } = new Held();
    await makeTower(backend, SIZE, STOREYS);
    await using world = await useDisk(backend, PATHS);
    const engine = engineOn(backend, ++boots, STRATEGIES);
    const live = { live: world.device, estimate: false };
    const paths = async (request: Request): Promise<readonly string[]> =>
      (await engine.plan({ ...request, format: 'qcow2' }, live)).images.map(({ path }) => path);
    expect(await paths(MIDDLE)).toEqual(['d', 'e', 'f'].map(at));
    expect(await paths(UP)).toEqual(['c', 'd', 'e', 'f', 'disk'].map(at));
    // it gives siblings what all layers show
    expect(await paths({ ...MIDDLE, strategy: 'preserve' })).toHaveLength(6);
  });

  const ROUNDS = perTier({ quick: 6, ci: 40, long: 2000 });

  test(`${ROUNDS} times at random, with a guest that writes`, async () => {
    for (let seed = 1; seed <= ROUNDS; seed++) await randomRound(seed);
  }, 600_000);
});

/** Stops a job when all its data is in place. */
function stopping(): RunOptions {
  const control = new AbortController();
  const beforeSwitch = (): Promise<void> => {
    control.abort();
    return Promise.reject(control.signal.reason);
  };
  return { signal: control.signal, beforeSwitch };
}

/** Stops a job when it has copied one piece. */
function stoppingEarly(): RunOptions {
  const control = new AbortController();
  let passes = 0;
  const pass = async (): Promise<void> => {
    if (++passes === 2) control.abort();
    control.signal.throwIfAborted();
  };
  return { signal: control.signal, throttle: { pass } };
}

async function stopped(job: Promise<unknown>): Promise<CommitError> {
  return job.then(
    () => {
      throw new Error('the job was not stopped');
    },
    (cause: CommitError) => cause,
  );
}

async function assertLock(
  backend: StorageBackend,
  path: string,
  inUse: readonly string[],
): Promise<void> {
  for (const [request, free] of [
    [READER, path !== at('disk')],
    [WRITER, !inUse.includes(path)],
    [LOSER, !inUse.includes(path)],
  ] as const) {
    const lock = await backend.lock(path, request).catch(() => null);
    expect(lock !== null, `${path} ${request.takes}`).toBe(free);
    await lock?.[Symbol.asyncDispose]();
  }
}

/** Random layers, two random jobs that do not overlap, beginning at random, and writes all the while. */
async function randomRound(seed: number): Promise<void> {
  const draw = caseContext(seed);
  const { backend } = new Held();
  await makeTower(backend, SIZE, randomStoreys(NAMES, SIZE, draw));
  await using world = await useDisk(backend, PATHS);
  const { device } = world;
  const expected = await shown(device);
  let over = false;
  const jobs = Promise.allSettled(
    twoRequests(draw).map((request) => run(backend, device, request)),
  ).finally(() => {
    over = true;
  });
  for (let one = 0; one < 5 || !over; one++) {
    const first = draw.integer(SIZE / SECTOR);
    const count = Math.min(1 + draw.integer(12), SIZE / SECTOR - first);
    const bytes = Buffer.alloc(count * SECTOR, `write ${one} of ${seed}; `);
    await device.write(guestOffset(first * SECTOR), bytes);
    bytes.copy(expected, first * SECTOR);
    if (draw.random() < 0.2) await device.flush();
    await new Promise((next) => setImmediate(next));
  }
  const failed = (await jobs).filter(({ status }) => status === 'rejected');
  expect(failed, `seed ${seed}`).toEqual([]);
  same(await shown(device), expected, `seed ${seed}`);
  await device.flush();
  same(await onDisk(backend, labels(device).at(-1)), expected, `seed ${seed}`);
}

/** A lower job of a up to d, and an upper one of what lies above it. */
function twoRequests(draw: CaseContext): readonly Request[] {
  const ways = ['copy-down', 'depth-first', 'staged'] as const;
  const way = (): string => ways[draw.integer(ways.length)] as string;
  const lower: readonly Request[] = [
    { file: at('c'), base: at('a'), top: at('b'), strategy: way() },
    { file: at('d'), base: at('a'), top: at('c'), strategy: way() },
    { file: at('c'), base: at('a'), strategy: 'stream' },
    { file: at('c'), strategy: 'stream' },
  ];
  const upper: readonly Request[] = [
    { file: at('disk'), base: at('d'), strategy: 'stream' },
    { file: at('disk'), base: at('e'), top: at('f'), strategy: way() },
    { file: at('disk'), base: at('e'), strategy: 'active' },
    { file: at('f'), base: at('d'), strategy: 'stream' },
  ];
  const both = [lower, upper].map((list) => list[draw.integer(list.length)] as Request);
  return draw.random() < 0.5 ? both : both.reverse();
}
