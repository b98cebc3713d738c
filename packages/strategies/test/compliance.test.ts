import { commitKit, type Scope, strategySubject } from '@downfold/commit/compliance';
import { currentTier, verify } from '@downfold/compliance';
import { describe, expect, it } from 'vitest';
import {
  active,
  auto,
  copyDown,
  depthFirst,
  preserve,
  rebase,
  staged,
  stream,
} from '../src/index.ts';

const scope: Scope = currentTier();
const choices = [copyDown, depthFirst, preserve, staged];
const strategies = [...choices, active, stream, rebase, auto(choices)];

describe.each(strategies)('$name', (strategy) => {
  const subject = strategySubject(strategy, { scope, chooses: choices });

  it('is run on the settings of the scope', async () => {
    const report = await (await subject.create()).report();
    console.log(`${strategy.name}: ${report}`);
    expect(report.crashStates).toBeGreaterThan(report.settings);
  });

  verify(commitKit, subject, it);
});
