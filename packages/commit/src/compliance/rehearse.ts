import type { CommitPlan } from '../plan.ts';
import type { Step } from '../step.ts';
import type { CommitStrategy } from '../strategy.ts';
import { requestOf } from './explore.ts';
import { Model } from './model.ts';
import { UNBEGUN } from './model-journal.ts';
import { viewForPlan, viewForSteps } from './model-view.ts';
import { Pool } from './pool.ts';
import type { Setting } from './setting.ts';

/** What a strategy plans in a setting. Rejects with what `plan` rejects with. */
export async function planIn(strategy: CommitStrategy, setting: Setting): Promise<CommitPlan> {
  const pool = new Pool(setting);
  const view = viewForPlan(pool, () => pool.initial, strategy.keepsSiblings);
  return strategy.plan(requestOf(setting), view);
}

/** The steps that a strategy takes in a setting when nothing comes in between. Rejects when one breaks a rule by itself. */
export async function stepsIn(
  strategy: CommitStrategy,
  setting: Setting,
): Promise<readonly Step[]> {
  const pool = new Pool(setting);
  const plan = await planIn(strategy, setting);
  const model = new Model(pool, plan, pool.initial, UNBEGUN);
  const view = viewForSteps(pool, () => model.seen, plan);
  const steps: Step[] = [];
  for await (const batch of strategy.steps(plan, view, null))
    for (const step of batch) {
      model.do(step);
      steps.push(step);
    }
  return steps;
}
