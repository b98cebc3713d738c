import { perTier } from '@downfold/compliance';
import { afterAll, describe, expect, test } from 'vitest';
import { BARRIER } from '../src/index.ts';
import type { ViolationKind } from './crash-lab.ts';
import { randomHistory } from './random-history.ts';
import { scenarios } from './scenarios.ts';
import { seeds } from './support.ts';

/**
 * The ordering rules W1 to W13 (README.md). Every legal crash of every scenario leaves a sound image; and every barrier is needed: with
 * it switched off, a scenario ends in a violation of the kind that its rule prevents.
 */
const deeper = perTier({ quick: 0, ci: 2, long: 5 });
const samples = perTier({ quick: 16, ci: 200, long: 2000 });

const total = { states: 0, judged: 0, histories: 0, caught: 0 };
afterAll(() => {
  const barriers = Object.keys(BARRIER).length;
  console.log(
    `qcow2: ${total.states} crash states of ${Object.keys(scenarios).length} scenarios and ${total.histories} random histories, ` +
      `${total.judged} of them judged, 0 violations; barriers whose absence is caught: ${total.caught} of ${barriers}`,
  );
});

describe('every crash leaves a sound image', () => {
  test.each(Object.entries(scenarios))('%s', async (name, scenario) => {
    const lab = await scenario.start();
    await scenario.run(lab);
    for (const tear of [false, true]) {
      const { states, judged, violations } = await lab.explore({
        tear,
        exhaustive: (scenario.exhaustive ?? 6) + deeper,
        samples: Math.max(scenario.samples ?? 16, samples),
      });
      expect(violations.slice(0, 3), name).toEqual([]);
      expect(judged).toBeGreaterThan(1);
      total.states += states;
      total.judged += judged;
    }
  });
});

describe('every crash of a random history leaves a sound image', () => {
  const tried = seeds(perTier({ quick: 100, ci: 1000, long: 20_000 }));
  // replay one: DOWNFOLD_SEED=n vitest run --project qcow2 ordering
  test.each(tried)('seed %i', async (seed) => {
    const lab = await randomHistory(seed);
    const found = await lab.explore({ exhaustive: 4, samples: 12, seed, tear: seed % 2 === 0 });
    expect(found.violations.slice(0, 3), `seed ${seed}`).toEqual([]);
    total.states += found.states;
    total.judged += found.judged;
    total.histories++;
  });
});

/** The scenarios that catch the absence of a barrier, and how. */
const catchers: Readonly<
  Record<
    keyof typeof BARRIER,
    readonly (readonly [scenario: keyof typeof scenarios, kind: ViolationKind])[]
  >
> = {
  content: [
    ['allocate: clusters that were used before, which no longer hold zeros', 'foreign'],
    ['allocate: clusters that were used before, which no longer hold zeros', 'corrupt'],
    ['amend: refcounts of other widths, where clusters were used before', 'corrupt'],
  ],
  refcountTable: [['new refcount blocks', 'corrupt']],
  refcountTableMoved: [
    ['a larger refcount table', 'corrupt'],
    ['amend: refcounts of other widths, where clusters were used before', 'corrupt'],
  ],
  mapping: [['deallocate, then use the clusters again', 'corrupt']],
  release: [['deallocate, then use the clusters again', 'leak']],
  data: [
    ['overwrite in place', 'lost'],
    [
      'a process is killed before its mapping is durable; the next one gives its leaks back',
      'corrupt',
    ],
  ],
  autoclear: [
    ['unknown autoclear bits', 'broken'],
    ['persistent bitmaps', 'broken'],
  ],
  corruptBit: [['an overlap that marks the image corrupt', 'broken']],
  backingName: [['relink, the name beyond the first sector', 'foreign']],
  backingSwitch: [['relink, the name beyond the first sector', 'lost']],
  l1Content: [['grow the disk to a larger L1 table', 'unreadable']],
  l1Switch: [['grow the disk to a larger L1 table', 'corrupt']],
  size: [['grow the disk within its L1 table', 'lost']],
  publish: [['publish a staging', 'corrupt']],
  snapshotTable: [['delete a snapshot of which the disk has nothing any more', 'corrupt']],
  snapshotApplied: [['apply a snapshot', 'corrupt']],
  extensionBody: [['marks: a first one, another, none', 'foreign']],
  extensionHead: [
    ['marks: a first one, another, none', 'lost'],
    ['bitmaps that record, are changed, and are saved', 'corrupt'],
  ],
  repaired: [['a dirty image is opened, and written', 'broken']],
  amend: [['amend: to version 2, without zero clusters, and back', 'lost']],
  bitmapsClaimed: [['a first bitmap is added, and removed', 'lost']],
  createContent: [['create', 'corrupt']],
  create: [['create', 'unreadable']],
};

describe('every barrier is needed', () => {
  test.each(Object.entries(BARRIER))('%s', async (key, barrier) => {
    const found = catchers[key as keyof typeof BARRIER];
    expect(found?.length, 'a barrier without a scenario that catches its absence').toBeGreaterThan(
      0,
    );
    for (const [name, kind] of found) {
      const scenario = scenarios[name];
      if (scenario === undefined) throw new Error(`no scenario ${name}`);
      const lab = await scenario.start();
      await scenario.run(lab);
      const options = { exhaustive: scenario.exhaustive ?? 6, samples: 16 };
      const { violations } = await lab.explore(
        { ...options, ignoreFlush: (flush) => flush === barrier },
        kind,
      );
      const caught = violations.find((violation) => violation.kind === kind);
      expect(caught, `${name}: without ${barrier} nothing is ${kind}`).toBeDefined();
    }
    total.caught++;
  });
});
