import { verify } from '@downfold/compliance';
import { expect, it } from 'vitest';
import {
  commitKit,
  type Setting,
  StrategyTestBed,
  strategySubject,
} from '../src/compliance/index.ts';
import { plain } from './plain-strategy.ts';

const subject = strategySubject(plain);

verify(commitKit, subject, it);

it('prints how much was tried', async () => {
  const report = await (await subject.create()).report();
  expect(String(report)).toMatch(
    /^[\d,]+ settings, [\d,]+ crash states, [\d,]+ resumed to the end, [\d,]+ steps, 0 violations$/,
  );
  expect(report.settings).toBeGreaterThan(500);
  expect(report.crashStates).toBeGreaterThan(5 * report.settings);
});

/** Top holds both sectors, base is shorter, and an overlay reads through top. */
const setting: Setting = {
  images: [
    { name: 'B', backing: null, cells: 'd', unit: 1, flat: false },
    { name: 'T', backing: 'B', cells: 'dd', unit: 1, flat: false },
    { name: 'A', backing: 'T', cells: '--', unit: 1, flat: false },
  ],
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
  batch: 16,
  slow: false,
};

it('tells the story of what it finds: setting, steps, crash, what was lost', async () => {
  const hasty = {
    ...plain,
    steps: async function* (...given: Parameters<typeof plain.steps>) {
      for await (const batch of plain.steps(...given))
        yield batch.filter((step) => step.do !== 'grow');
    },
  };
  const report = await new StrategyTestBed(hasty, { settings: [setting] }).report();
  expect(report.findings.get('steps/within-the-disks')?.first).toBe(
    [
      'Violation: sector 1 of B, which has 1',
      '  in [B=d] [T@B=dd] [A@T=--] commit top T base B, siblings invalidate, checkpoint 2, batch 16',
      '  {"do":"invalidate","nodes":["B"]}',
      '  {"do":"checkpoint","cursor":{"at":0}}',
      '  [0, 1) {"do":"copy","from":"T","to":"B","host":8704}',
      '  {"do":"checkpoint","cursor":{"at":512}}',
      '  [1, 2) {"do":"copy","from":"T","to":"B","host":8192}',
    ].join('\n'),
  );
});
