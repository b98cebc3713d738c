import { caseContext, perTier } from '@downfold/compliance';
import type { Image } from '@downfold/image';
import {
  type CrashOptions,
  type CrashState,
  MemoryDisk,
  memoryBackend,
} from '@downfold/storage-memory';
import { byteLength, guestOffset } from '@downfold/units';
import { describe, expect, test } from 'vitest';
import { BARRIER } from '../src/barriers.ts';
import { type Qcow2CreateOptions, qcow2 } from '../src/index.ts';
import { Craft } from './craft.ts';
import { IMAGE } from './crash-lab.ts';
import { StageLab } from './stage-lab.ts';

const KIB = 1024;
const SMALL = 512;
const UNDO = { name: 'undo', date: '2026-11-25T00:00:00Z' };

/** A staging whose every crash is explored. */
interface Scenario {
  readonly options: Omit<Qcow2CreateOptions, 'virtualSize'> & { readonly virtualSize: number };
  /** Written before: guest bytes [0, filled). */
  readonly filled: number;
  readonly craft?: (craft: Craft) => void;
  readonly below?: Uint8Array;
  readonly run: (lab: StageLab) => Promise<void>;
  /** Pending changes up to which all subsets are tried (default 5), and random ones above that (default 12). */
  readonly exhaustive?: number;
  readonly samples?: number;
  /** Crash states from which another process goes on (default 4). */
  readonly recoveries?: number;
}

const small = { clusterSize: SMALL, virtualSize: 64 * SMALL };
const backing = { name: 'below.raw', format: 'raw' };
const noise = (length: number): Uint8Array => caseContext(7).bytes(length);

const scenarios: Readonly<Record<string, Scenario>> = {
  'write, zero, copy, and publish': {
    options: small,
    filled: 24 * SMALL,
    run: async (lab) => {
      await lab.stage();
      await lab.write(2 * SMALL, 3 * SMALL);
      await lab.zero(8 * SMALL, 2 * SMALL);
      await lab.flush();
      await lab.copy(3 * SMALL, 3 * SMALL);
      await lab.flushImage();
      await lab.zero(4 * SMALL, SMALL);
      await lab.write(40 * SMALL + 100, 300);
      await lab.flush();
      await lab.write(9 * SMALL, SMALL);
      await lab.publish();
    },
  },
  'a snapshot, compressed and preallocated clusters, and growth': {
    options: { ...small, backing },
    filled: 30 * SMALL,
    below: noise(90 * SMALL),
    craft: (craft) => {
      craft.compress([2, 3, 4, 5]);
      craft.preallocateZero([10, 11]);
      craft.snapshot();
    },
    run: async (lab) => {
      await lab.stage(150 * SMALL);
      await lab.write(3 * SMALL + 10, SMALL);
      await lab.zero(4 * SMALL, SMALL);
      await lab.write(10 * SMALL, SMALL);
      await lab.flush();
      await lab.write(100 * SMALL, 2 * SMALL);
      await lab.zero(20 * SMALL, 3 * SMALL);
      await lab.publish();
    },
    samples: 8,
  },
  'an undo snapshot': {
    options: small,
    filled: 20 * SMALL,
    craft: (craft) => craft.compress([12, 13, 14]),
    run: async (lab) => {
      await lab.stage(140 * SMALL);
      await lab.write(2 * SMALL, 2 * SMALL);
      await lab.write(130 * SMALL, SMALL);
      await lab.zero(13 * SMALL, SMALL);
      await lab.publish(UNDO);
    },
    samples: 8,
  },
  'an undo snapshot beside another one': {
    options: { ...small, refcountBits: 4 },
    filled: 20 * SMALL,
    craft: (craft) => craft.snapshot(),
    run: async (lab) => {
      await lab.stage();
      await lab.write(2 * SMALL, 2 * SMALL);
      await lab.flush();
      await lab.publish(UNDO);
    },
    samples: 8,
  },
  discarded: {
    options: small,
    filled: 20 * SMALL,
    run: async (lab) => {
      await lab.stage(140 * SMALL);
      await lab.write(2 * SMALL, 2 * SMALL);
      await lab.flush();
      await lab.zero(2 * SMALL, SMALL);
      await lab.zero(5 * SMALL, 2 * SMALL);
      await lab.write(130 * SMALL, SMALL);
      await lab.discard();
    },
  },
  'discarded, with refcounts in several blocks': {
    options: { ...small, refcountBits: 64 },
    filled: 40 * SMALL,
    run: async (lab) => {
      await lab.stage();
      await lab.write(0, 30 * SMALL);
      await lab.flush();
      await lab.zero(20 * SMALL, 10 * SMALL);
      await lab.discard();
    },
    exhaustive: 4,
    samples: 4,
  },
  'killed and gone on with, twice': {
    options: small,
    filled: 20 * SMALL,
    run: async (lab) => {
      await lab.stage();
      await lab.write(2 * SMALL, 2 * SMALL);
      await lab.flush();
      await lab.write(3 * SMALL, 2 * SMALL);
      await lab.killAndGoOn();
      await lab.write(30 * SMALL, 2 * SMALL);
      await lab.flush();
      await lab.zero(2 * SMALL, SMALL);
      await lab.killAndGoOn();
      await lab.write(10 * SMALL, SMALL);
      await lab.publish();
    },
    samples: 8,
  },
  'killed in a flush, before its mapping is durable': {
    options: small,
    filled: 20 * SMALL,
    run: async (lab) => {
      await lab.stage();
      await lab.write(2 * SMALL, 3 * SMALL);
      await lab.write(30 * SMALL, SMALL);
      await lab.flush();
      await lab.zero(2 * SMALL, 2 * SMALL);
      await lab.dieInFlush(BARRIER.mapping);
      await lab.killAndGoOn();
      await lab.write(40 * SMALL, 3 * SMALL);
      await lab.flush();
      await lab.publish();
    },
    samples: 8,
  },
  'subclusters over a backing file': {
    options: { clusterSize: 16 * KIB, extendedL2: true, virtualSize: 96 * KIB, backing },
    filled: 41 * KIB,
    below: noise(90 * KIB),
    run: async (lab) => {
      await lab.stage();
      await lab.zero(4 * SMALL, 3 * SMALL);
      await lab.write(30 * SMALL, 4 * SMALL);
      await lab.flush();
      await lab.write(5 * SMALL, SMALL);
      await lab.zero(16 * KIB, 16 * KIB);
      await lab.publish();
    },
    samples: 6,
  },
  'version 2 over a backing file, and growth': {
    options: { ...small, version: 2, backing },
    filled: 10 * SMALL,
    below: noise(80 * SMALL),
    run: async (lab) => {
      await lab.stage(70 * SMALL);
      await lab.zero(4 * SMALL, 2 * SMALL);
      await lab.write(30 * SMALL, 2 * SMALL);
      await lab.publish(null);
    },
    samples: 8,
  },
  'new refcount blocks': {
    options: { ...small, refcountBits: 64 },
    filled: 40 * SMALL,
    run: async (lab) => {
      await lab.stage();
      await lab.write(0, 24 * SMALL);
      await lab.flush();
      await lab.write(40 * SMALL, 20 * SMALL);
      await lab.publish();
    },
    exhaustive: 4,
    samples: 4,
  },
  'a larger refcount table': {
    options: { clusterSize: SMALL, refcountBits: 64, virtualSize: 4096 * SMALL },
    filled: 3926 * SMALL,
    run: async (lab) => {
      await lab.stage();
      await lab.write(0, 60 * SMALL);
      await lab.flush();
      // more blocks, noted in the table at its new place
      await lab.write(60 * SMALL, 80 * SMALL);
      await lab.publish();
    },
    exhaustive: 1,
    samples: 2,
    recoveries: 1,
  },
};

/** Makes the image of a scenario, all durable, and starts recording. */
async function started({ options, filled, craft, below }: Scenario): Promise<StageLab> {
  const disk = new MemoryDisk();
  const storage = await memoryBackend(disk).create(IMAGE, { secret: false });
  const virtualSize = byteLength(options.virtualSize);
  await using image: Image = await qcow2.create(storage, { ...options, virtualSize });
  const content = new Uint8Array(filled);
  for (let at = 0; at < filled; at += 64) content.fill(1 + ((at / 64) % 251), at, at + 48);
  await image.write(guestOffset(0), content, { fill: null });
  await image.flush();
  craft?.(new Craft(disk, IMAGE));
  return StageLab.start(disk, below ?? null);
}

async function ran(scenario: Scenario): Promise<StageLab> {
  const lab = await started(scenario);
  await scenario.run(lab);
  return lab;
}

const deeper = perTier({ quick: 0, ci: 2, long: 5 });
const more = perTier({ quick: 1, ci: 10, long: 100 });

function depth({ exhaustive = 5, samples = 12 }: Scenario): CrashOptions {
  return { exhaustive: exhaustive + deeper, samples: samples * more };
}

describe('every crash of a staging leaves the old or the new content, and nothing lost that was flushed', () => {
  test.each(Object.entries(scenarios))('%s', async (name, scenario) => {
    const lab = await ran(scenario);
    for (const tear of [false, true]) {
      const { states, judged, violations } = await lab.explore({ ...depth(scenario), tear });
      expect(violations.slice(0, 3), name).toEqual([]);
      console.log(
        `${name}${tear ? ', torn' : ''}: ${states} crash states, ${judged} judged, 0 violations`,
      );
    }
  });
});

describe('so does every crash while another process goes on after a crash', () => {
  test.each(Object.entries(scenarios))('%s', async (name, scenario) => {
    const lab = await ran(scenario);
    const { integer } = caseContext(name.length);
    const { recoveries = 4 } = scenario;
    const open = [...lab.crashes({ exhaustive: 3, samples: 4 })].filter(
      ({ at, isNew }) => isNew && lab.isOpen(at),
    );
    let [states, judged] = [0, 0];
    for (let sample = 0; sample < Math.min(recoveries * more, open.length); sample++) {
      const crash = open.splice(integer(open.length), 1)[0] as CrashState;
      const next = await StageLab.recover(crash.disk, scenario.below ?? null, lab.token);
      if (next === null) continue;
      await next.write(SMALL, 2 * SMALL);
      await next.flush();
      await next.zero(0, 4 * SMALL);
      await (sample % 2 === 0 ? next.publish() : next.discard());
      const found = await next.explore({ exhaustive: 3, samples: 3 });
      expect(found.violations.slice(0, 3), `${name}, ${crash.name}`).toEqual([]);
      states += found.states;
      judged += found.judged;
    }
    console.log(`${name}: ${states} crash states of recoveries, ${judged} judged, 0 violations`);
    expect(judged).toBeGreaterThan(0);
  });
});

/** A scenario that catches the absence of each barrier that a staging issues. */
const catchers: Readonly<Record<string, keyof typeof scenarios>> = {
  content: 'write, zero, copy, and publish',
  refcountTable: 'new refcount blocks',
  refcountTableMoved: 'a larger refcount table',
  mapping: 'write, zero, copy, and publish',
  release: 'discarded',
  data: 'killed in a flush, before its mapping is durable',
  publish: 'write, zero, copy, and publish',
};

describe('every barrier of a staging is needed', () => {
  test.each(Object.entries(catchers))('%s', async (key, name) => {
    const barrier = BARRIER[key as keyof typeof BARRIER];
    const scenario = scenarios[name] as Scenario;
    const lab = await ran(scenario);
    const ignoreFlush = (flush: string): boolean => flush === barrier;
    const { violations } = await lab.explore({ ...depth(scenario), one: true, ignoreFlush });
    expect(violations.length, `nothing needs ${barrier}`).toBeGreaterThan(0);
    console.log(`without ${barrier}: ${violations[0]}`);
  });

  test('and no other is issued', async () => {
    const issued = new Set<string>();
    for (const scenario of Object.values(scenarios)) {
      const { log } = (await ran(scenario)).recording;
      for (const entry of log) if (entry.kind === 'flush') issued.add(entry.barrier);
    }
    expect([...issued].sort()).toEqual(
      Object.keys(catchers)
        .map((key) => BARRIER[key as keyof typeof BARRIER])
        .sort(),
    );
  });
});
