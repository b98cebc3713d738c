import {
  commitKit,
  type Setting,
  type SettingImage,
  StrategyTestBed,
  strategySubject,
} from '@downfold/commit/compliance';
import { killers } from '@downfold/compliance';
import { expect, test } from 'vitest';
import { copyMutants } from './mutants/copy-mutants.ts';
import { drainMutants, seedDepthFirst } from './mutants/drain-mutants.ts';
import { otherMutants } from './mutants/other-mutants.ts';
import { pivotMutants } from './mutants/pivot-mutants.ts';
import { planMutants } from './mutants/plan-mutants.ts';
import { pushMutants } from './mutants/push-mutants.ts';
import { resumeMutants } from './mutants/resume-mutants.ts';

const mutants = [
  ...copyMutants,
  ...resumeMutants,
  ...planMutants,
  ...drainMutants,
  ...pushMutants,
  ...otherMutants,
  ...pivotMutants,
];

test.each(mutants)('the kit kills: $name, by $killedBy', async ({ killedBy, strategy }) => {
  const named = commitKit.filter(({ id }) => id === killedBy);
  const subject = strategySubject(strategy, { until: killedBy });
  expect(await killers(named, subject)).toEqual([killedBy]);
});

test('every case kills a mutant: it can fail', () => {
  const killing = new Set<string>(mutants.map(({ killedBy }) => killedBy));
  expect(commitKit.map(({ id }) => id).filter((id) => !killing.has(id))).toEqual([]);
});

/** Base, an intermediate, top and an overlay of one sector, allocated where the letter is `d`. */
function oneSector(cells: string): Setting {
  const names = ['B', 'M', 'T', 'A'];
  const images = names.map(
    (name, at): SettingImage => ({
      name,
      backing: names[at - 1] ?? null,
      cells: cells[at] as string,
      unit: 1,
      flat: false,
    }),
  );
  return {
    images,
    operation: 'commit',
    leaf: 'A',
    base: 'B',
    top: 'T',
    emptyTop: false,
    siblings: 'invalidate',
    keepUndo: false,
    unsafe: false,
    checkpointSectors: 2,
    stages: false,
    batch: 1,
    slow: false,
  };
}

test('depth-first with drained layers still linked is wrong in 4 of 16 patterns, for top', async () => {
  const wrong: string[] = [];
  for (let pattern = 0; pattern < 16; pattern++) {
    const cells = [8, 4, 2, 1].map((bit) => ((pattern & bit) === 0 ? '-' : 'd')).join('');
    const settings = [oneSector(cells)];
    const report = await new StrategyTestBed(seedDepthFirst.strategy, { settings }).report();
    const finding = report.findings.get('crash/preserved-images-read-as-before');
    if (finding?.first.startsWith('T shows')) wrong.push(cells);
  }
  expect(wrong).toEqual(['-dd-', '-ddd', 'ddd-', 'dddd']);
});
