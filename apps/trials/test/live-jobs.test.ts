import { writeFile } from 'node:fs/promises';
import { defaultPolicy, openChain, viewOf } from '@downfold/chain';
import type { CommitError, RunOptions, SectionReport } from '@downfold/commit';
import { caseContext } from '@downfold/compliance';
import type { Device } from '@downfold/device';
import { qcow2 } from '@downfold/qcow2';
import {
  LOSER,
  type LockRequest,
  openBackend,
  READER,
  type StorageBackend,
  WRITER,
} from '@downfold/storage';
import { type FaultyDriver, faulty } from '@downfold/storage/faults';
import { fileBackend } from '@downfold/storage-file';
import { MemoryDisk, memoryBackend, memoryBackendDriver } from '@downfold/storage-memory';
import { byteLength, guestOffset, hostOffset } from '@downfold/units';
import { describe, expect, test } from 'vitest';
import { engineOn } from '../src/crash/case.ts';
import { changed } from '../src/live/changed.ts';
import { diskIn, type LiveTrial, runLive, STRATEGIES } from '../src/live/trial.ts';
import {
  makeChain,
  makeShortTop,
  NAMES,
  pathIn,
  SIZE,
  useDisk,
  type World,
} from '../src/live/world.ts';
import { checkByQemu, qemuIsHere, sameByQemu } from '../src/tools/qemu.ts';
import { scratch } from '../src/tools/scratch.ts';

const paths = NAMES.map((name) => pathIn('/', name));
const [BASE, LOW, TOP, ACTIVE] = paths as [string, string, string, string];

interface Bench {
  readonly faults: FaultyDriver;
  readonly backend: StorageBackend;
}

async function bench(seed = 1): Promise<Bench> {
  const disk = new MemoryDisk();
  await makeChain(memoryBackend(disk), '/', caseContext(seed));
  const faults = faulty(memoryBackendDriver(disk));
  return { faults, backend: openBackend(faults) };
}

async function shown(device: Device): Promise<Buffer> {
  const bytes = Buffer.alloc(SIZE);
  await device.read(guestOffset(0), bytes);
  return bytes;
}

function start(
  { backend }: Pick<Bench, 'backend'>,
  device: Device,
  strategy: string,
  options: RunOptions = {},
): Promise<unknown> {
  const engine = engineOn(backend, 1, STRATEGIES);
  const request = {
    file: ACTIVE,
    format: 'qcow2',
    strategy,
    base: BASE,
    ...(strategy === 'active' || strategy === 'stream' ? {} : { top: TOP }),
    checkpointBytes: byteLength(16 * 1024),
  };
  return engine
    .plan(request, { live: device, estimate: false })
    .then((plan) => engine.run(plan, { live: device, ...options }));
}

async function failure(job: Promise<unknown>): Promise<CommitError> {
  const cause = await job.then(
    () => null,
    (error: CommitError) => error,
  );
  if (cause === null) throw new Error('the job did not fail');
  return cause;
}

/** Who may lock an image now. */
async function admits({ backend }: Bench, path: string): Promise<string> {
  const names = [];
  for (const [name, request] of Object.entries({ READER, WRITER, LOSER })) {
    const lock = await backend.lock(path, request).catch(() => null);
    if (lock === null) continue;
    names.push(name);
    await lock[Symbol.asyncDispose]();
  }
  return names.join(' ');
}

/** What is open for writing, of the layers under a disk. */
function writable({ device }: World): readonly string[] {
  return device.layers.filter(({ image }) => image.writable).map(({ image }) => image.label);
}

describe('what a job borrows', () => {
  test('is open for writing and locked so while it runs, and as before afterwards', async () => {
    const here = await bench();
    await using world = await useDisk(here.backend, paths);
    const before = await shown(world.device);
    const reports: SectionReport[] = [];
    const during: string[] = [];
    await start(here, world.device, 'copy-down', {
      onSection: (report) => void reports.push(report),
      beforeSwitch: async () => {
        during.push(...writable(world), await admits(here, BASE), await admits(here, LOW));
      },
    });
    expect(during).toEqual([BASE, TOP, ACTIVE, '', '']);
    expect(writable(world)).toEqual([ACTIVE]);
    expect(await admits(here, BASE)).toBe('READER');
    // what left the disk is nobody's any more
    expect(await admits(here, LOW)).toBe('READER WRITER LOSER');
    expect(world.device.layers.map(({ image }) => image.label)).toEqual([BASE, ACTIVE]);
    expect(reports.map(({ what }) => what)).toEqual(['reopen', 'relink', 'reopen']);
    expect(await shown(world.device)).toEqual(before);
  });

  test('may be looked at by force, but not what loses its meaning: an active layer does so at the pivot', async () => {
    const here = await bench();
    await using world = await useDisk(here.backend, paths);
    const glance: LockRequest = { takes: ['consistent-read'], forbids: [] };
    const seen: string[] = [];
    await start(here, world.device, 'active', {
      beforeSwitch: async () => {
        for (const path of paths) {
          const lock = await here.backend.lock(path, glance).catch(() => null);
          if (lock !== null) seen.push(path);
          await lock?.[Symbol.asyncDispose]();
        }
      },
    });
    expect(seen).toEqual([BASE, ACTIVE]);
  });

  test('is checked before it is put under the disk: what is corrupt is refused, and nothing changes', async () => {
    const here = await bench();
    await using world = await useDisk(here.backend, paths);
    const before = await shown(world.device);
    {
      // an L1 entry of base that points into its header
      await using file = await here.backend.open(BASE, 'write');
      const head = Buffer.alloc(48);
      await file.read(hostOffset(0), head);
      const entry = Buffer.alloc(8);
      entry.writeBigUInt64BE(0x8000_0000_0000_0000n);
      const table = Number(head.readBigUInt64BE(40));
      await file.read(hostOffset(table), entry);
      const l2 = Number(entry.readBigUInt64BE() & 0x00ff_ffff_ffff_fe00n);
      const data = Buffer.alloc(8);
      data.writeBigUInt64BE(BigInt(table) | 0x8000_0000_0000_0000n);
      await file.write(hostOffset(l2 + 16), data);
      await file.flush('test');
    }
    const cause = await failure(start(here, world.device, 'copy-down'));
    expect(cause.code).toBe('COMMIT_UNCHECKED');
    expect(writable(world)).toEqual([ACTIVE]);
    expect(await admits(here, BASE)).toBe('READER');
    expect(world.device.layers).toHaveLength(4);
    expect((await shown(world.device)).length).toBe(before.length);
  });
});

describe('a job beneath a guest whose requests get slow', () => {
  test.each(['copy-down', 'active'])(
    '%s rests, and nothing runs beside them then',
    async (name) => {
      const here = await bench();
      await using world = await useDisk(here.backend, paths);
      let [now, beside] = [0, 0];
      const rests: number[] = [];
      const engine = engineOn(here.backend, 1, STRATEGIES, {
        // each look at the clock is a moment later
        now: () => (now += 20),
        sleep: async (milliseconds) => {
          expect(beside).toBe(0);
          rests.push(milliseconds);
        },
      });
      const latency = {
        beside: () => {
          beside++;
          return () => {
            beside--;
          };
        },
        strain: () => 10,
      };
      const live = changed(world.device, { latency });
      const top = name === 'active' ? {} : { top: TOP };
      const request = { file: ACTIVE, format: 'qcow2', strategy: name, base: BASE, ...top };
      await engine.run(await engine.plan(request, { live, estimate: false }), { live });
      expect(rests.length).toBeGreaterThan(2);
      expect(beside).toBe(0);
    },
  );
});

describe('a disk that changes while a job works', () => {
  test('and grows past a short top shows zeros there, not what base holds', async () => {
    const backend = memoryBackend(new MemoryDisk());
    const KIB = 1024;
    await makeShortTop(backend);
    await using world = await useDisk(backend, [BASE, TOP, ACTIVE]);
    const { device } = world;
    await start({ backend }, device, 'copy-down', {
      beforeSwitch: () => device.resize(byteLength(256 * KIB)),
    });
    expect(device.layers).toHaveLength(2);
    const grown = Buffer.alloc(192 * KIB);
    await device.read(guestOffset(64 * KIB), grown);
    expect(grown.every((byte) => byte === 0)).toBe(true);
  });

  test('gets data into a layer that it only reads, and reads the same', async () => {
    const here = await bench(4);
    await using world = await useDisk(here.backend, paths);
    const before = await shown(world.device);
    const engine = engineOn(here.backend, 1, STRATEGIES);
    const live = world.device;
    const request = { file: TOP, format: 'qcow2', strategy: 'stream' };
    const plan = await engine.plan(request, { live, estimate: false });
    await engine.run(plan, { live });
    expect(live.layers.map(({ image }) => image.label)).toEqual([TOP, ACTIVE]);
    expect(writable(world)).toEqual([ACTIVE]);
    expect(await shown(live)).toEqual(before);
  });
});

describe('when base cannot be written', () => {
  test.each(['copy-down', 'depth-first', 'preserve', 'staged', 'active'])(
    '%s stops, the guest does not notice, and the job can be gone on with beneath it',
    async (strategy) => {
      const here = await bench(3);
      await using world = await useDisk(here.backend, paths);
      const before = await shown(world.device);
      here.faults.inject({
        operation: 'copyFrom',
        file: BASE,
        nth: 3,
        code: 'STORAGE_NO_SPACE',
      });
      const cause = await failure(start(here, world.device, strategy));
      expect(cause.code).toBe('COMMIT_STOPPED');
      expect(here.faults.fired).toHaveLength(1);
      await world.device.write(guestOffset(512), Buffer.alloc(512, 7), { fua: true });
      before.fill(7, 512, 1024);
      await world.device.flush();
      expect(await shown(world.device)).toEqual(before);
      expect(writable(world)).toEqual([ACTIVE]);
      await engineOn(here.backend, 2, STRATEGIES).resume(ACTIVE, { live: world.device });
      expect(await shown(world.device)).toEqual(before);
      const left = strategy === 'active' ? [BASE] : [BASE, ACTIVE];
      expect(world.device.layers.map(({ image }) => image.label)).toEqual(left);
    },
  );

  test('and the job is given up beneath it, the guest does not notice either', async () => {
    const here = await bench(3);
    await using world = await useDisk(here.backend, paths);
    const before = await shown(world.device);
    const control = new AbortController();
    const job = start(here, world.device, 'copy-down', {
      signal: control.signal,
      beforeSwitch: () => {
        control.abort();
        return Promise.reject(control.signal.reason);
      },
    });
    expect((await failure(job)).code).toBe('COMMIT_CANCELLED');
    const engine = engineOn(here.backend, 2, STRATEGIES);
    // all data is in place, and yet nobody sees it: what waits for its user can be given up
    const layers = world.device.layers.map(({ image }) => image.label);
    await engine.abort(ACTIVE, { live: world.device });
    expect(await engine.journalOf(ACTIVE)).toBeNull();
    expect(await shown(world.device)).toEqual(before);
    expect(world.device.layers.map(({ image }) => image.label)).toEqual(layers);
  });
});

describe('a pivot', () => {
  test('whose target fails while it is kept like the disk fails alone: no request does', async () => {
    const here = await bench(2);
    await using world = await useDisk(here.backend, paths);
    const before = await shown(world.device);
    const ready = Promise.withResolvers<void>();
    const job = failure(
      start(here, world.device, 'active', {
        active: { ready: () => ready.resolve(), ended: () => new Promise(() => undefined) },
      }),
    );
    await ready.promise;
    here.faults.inject({ operation: 'write', file: BASE, times: Number.POSITIVE_INFINITY });
    await world.device.write(guestOffset(4096), Buffer.alloc(4096, 9), { fua: true });
    before.fill(9, 4096, 8192);
    expect((await job).code).toBe('COMMIT_STOPPED');
    here.faults.clear();
    await world.device.flush();
    expect(await shown(world.device)).toEqual(before);
    expect(world.device.layers).toHaveLength(4);
    const given = await engineOn(here.backend, 2, STRATEGIES).abort(ACTIVE, { live: world.device });
    expect(given.mixed).toEqual([BASE, LOW, TOP]);
    await world.device.write(guestOffset(0), Buffer.alloc(512, 5), { fua: true });
    before.fill(5, 0, 512);
    expect(await shown(world.device)).toEqual(before);
  });

  test.each([
    ['marked, and deleted', true, [LOW, TOP]],
    ['marked', false, []],
  ])(
    'after which marks were missing is gone on with: what lost its meaning is %s',
    async (_what, deleteIntermediates, deleted) => {
      const here = await bench(2);
      let before: Buffer;
      {
        await using world = await useDisk(here.backend, paths);
        before = await shown(world.device);
        const ready = (): void => here.faults.inject({ operation: 'open', file: LOW });
        const active = { ready, ended: async () => 'complete' as const };
        expect((await failure(start(here, world.device, 'active', { active }))).code).toBe(
          'COMMIT_STOPPED',
        );
      }
      here.faults.clear();
      const engine = engineOn(here.backend, 2, STRATEGIES);
      expect((await engine.journalOf(ACTIVE))?.pivoted).toBe(BASE);
      const result = await engine.resume(ACTIVE, { deleteIntermediates });
      expect(result).toMatchObject({ pivoted: BASE, deleted, unmarked: [] });
      const left = (await here.backend.list('/')).map(({ name }) => `/${name}`).sort();
      expect(left).toEqual(paths.filter((path) => !deleted.includes(path)).sort());
      await using world = await useDisk(here.backend, [BASE]);
      expect((await shown(world.device)).equals(before)).toBe(true);
    },
  );

  test('killed between what is deleted, deletes the rest', async () => {
    const here = await bench(2);
    {
      await using world = await useDisk(here.backend, paths);
      const ready = (): void => here.faults.inject({ operation: 'open', file: LOW });
      const active = { ready, ended: async () => 'complete' as const };
      await failure(start(here, world.device, 'active', { active }));
    }
    here.faults.clear();
    here.faults.inject({ operation: 'remove', file: TOP });
    const wish = { deleteIntermediates: true };
    await failure(engineOn(here.backend, 2, STRATEGIES).resume(ACTIVE, wish));
    here.faults.clear();
    // the wish is in the journal: it need not be said again
    const { deleted } = await engineOn(here.backend, 3, STRATEGIES).resume(ACTIVE);
    expect(deleted).toEqual([LOW, TOP]);
    expect((await here.backend.list('/')).map(({ name }) => `/${name}`).sort()).toEqual(
      [ACTIVE, BASE].sort(),
    );
  });

  test('whose record cannot be written does not happen, and is taken back', async () => {
    const here = await bench(2);
    await using world = await useDisk(here.backend, paths);
    const before = await shown(world.device);
    here.faults.inject({ operation: 'flush', name: 'journal: PIVOT', done: 'all' });
    expect((await failure(start(here, world.device, 'active'))).code).toBe('COMMIT_STOPPED');
    expect(await diskIn(here.backend)).toBe(ACTIVE);
    await world.device.write(guestOffset(0), Buffer.alloc(512, 5), { fua: true });
    before.fill(5, 0, 512);
    expect(await shown(world.device)).toEqual(before);
  });

  test('that may have happened or not leaves a disk that takes no more changes', async () => {
    const here = await bench(2);
    const world = await useDisk(here.backend, paths);
    const before = await shown(world.device);
    here.faults.inject({
      operation: 'flush',
      name: /^journal: (PIVOT|a record taken back)$/,
      times: Number.POSITIVE_INFINITY,
      done: 'all',
    });
    expect((await failure(start(here, world.device, 'active'))).code).toBe('COMMIT_STOPPED');
    await expect(world.device.write(guestOffset(0), Buffer.alloc(512, 5))).rejects.toMatchObject({
      code: 'DEVICE_FLUSH_FAILED',
    });
    expect(await shown(world.device)).toEqual(before);
  });
});

describe('where a strategy does not belong', () => {
  test.each([
    ['active', TOP, 'COMMIT_UNSUPPORTED'],
    ['copy-down', ACTIVE, 'COMMIT_UNSUPPORTED'],
  ])('%s with top %s is refused', async (strategy, top, code) => {
    const here = await bench();
    await using world = await useDisk(here.backend, paths);
    const engine = engineOn(here.backend, 1, STRATEGIES);
    const request = { file: ACTIVE, format: 'qcow2', strategy, base: BASE, top };
    expect((await failure(engine.plan(request, { live: world.device }))).code).toBe(code);
  });

  test('active is refused when nobody uses the disk', async () => {
    const here = await bench();
    const engine = engineOn(here.backend, 1, STRATEGIES);
    const request = { file: ACTIVE, format: 'qcow2', strategy: 'active', base: BASE };
    expect((await failure(engine.plan(request))).code).toBe('COMMIT_UNSUPPORTED');
  });
});

// The same on real files, with QEMU as the judge of what is left.
describe.skipIf(!qemuIsHere())('on files', () => {
  test.each(STRATEGIES.map(({ name }) => name))(
    '%s: QEMU agrees with what the guest saw',
    async (strategy) => {
      for (const seed of [1, 2]) {
        await using directory = await scratch('live');
        const backend = fileBackend();
        const draw = caseContext(seed);
        await makeChain(backend, directory.path, draw);
        const trial: LiveTrial = {
          seed,
          strategy,
          requests: 300,
          share: 0,
          ending: seed % 2 === 0 ? 'cancel' : 'complete',
        };
        const problems: string[] = [];
        const { guest } = await runLive(backend, directory.path, trial, draw, {
          now: () => 0,
          problems,
          changed: () => undefined,
          ended: () => undefined,
        });
        expect(problems).toEqual([]);
        const disk = await diskIn(backend, directory.path);
        const environment = { backend, formats: [qcow2], policy: defaultPolicy };
        const found = Buffer.alloc(SIZE);
        {
          await using chain = await openChain(disk, 'qcow2', environment);
          await viewOf(chain.layers, chain.layers.length - 1)(guestOffset(0), found);
        }
        expect(guest.wrongNow(found)).toBeNull();
        const expected = `${directory.path}/expected.raw`;
        await writeFile(expected, found);
        expect(await sameByQemu(disk, 'qcow2', expected)).toBe('');
        for (const name of NAMES) expect(await checkByQemu(pathIn(directory.path, name))).toBe('');
      }
    },
  );
});
