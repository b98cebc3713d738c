import type { ComplianceCase, SubjectFactory } from '@downfold/compliance';
import type { CommitStrategy } from '../strategy.ts';
import { explore } from './explore.ts';
import { Report } from './report.ts';
import { type RuleId, rules, type StrategyAbility } from './rules.ts';
import { depthOf, type Scope, settingsOf } from './scope.ts';
import type { Setting } from './setting.ts';

/** What the kit is run on. */
export interface StrategyOptions {
  /** Default `quick`: seconds. `ci`: a minute. `long`: every setting there is; hours. */
  readonly scope?: Scope;
  /** Strategies whose plans this one returns, when it chooses among others. */
  readonly chooses?: readonly CommitStrategy[];
  /** Instead of the settings of the scope. */
  readonly settings?: Iterable<Setting>;
  /** Stops after so many settings in which a rule was broken. Default 25. */
  readonly enough?: number;
  /** Goes on until this rule was broken, if it ever is, whatever else was. */
  readonly until?: RuleId;
}

/** A strategy under test. All of its cases share one exploration. */
export class StrategyTestBed {
  readonly #strategy: CommitStrategy;
  readonly #options: StrategyOptions;
  #report: Promise<Report> | null = null;

  constructor(strategy: CommitStrategy, options: StrategyOptions) {
    this.#strategy = strategy;
    this.#options = options;
  }

  /** What came of running the strategy in the model on every setting of the scope. */
  report(): Promise<Report> {
    this.#report ??= this.#explore();
    return this.#report;
  }

  async #explore(): Promise<Report> {
    const { scope = 'quick', enough = 25, settings, until } = this.#options;
    const report = new Report();
    const strategies = { strategy: this.#strategy, named: this.#named.bind(this) };
    for (const setting of settings ?? settingsOf(this.#strategy, scope)) {
      await explore(strategies, setting, depthOf(scope), report);
      if (until === undefined ? report.failed >= enough : report.findings.has(until)) break;
    }
    if (report.settings === 0)
      report.found('plan/can-be-made', () => `refused ${report.refused} settings`);
    return report;
  }

  #named(name: string): CommitStrategy {
    const all = [this.#strategy, ...(this.#options.chooses ?? [])];
    const found = all.find((one) => one.name === name);
    if (found !== undefined) return found;
    throw new RangeError(`the plan is one of '${name}', which is not among the strategies`);
  }
}

/** How the cases of `commitKit` get at a strategy. */
export function strategySubject(
  strategy: CommitStrategy,
  options: StrategyOptions = {},
): SubjectFactory<StrategyTestBed, StrategyAbility> {
  const bed = new StrategyTestBed(strategy, options);
  return {
    abilities: new Set<StrategyAbility>([
      strategy.operation,
      ...(strategy.keepsSiblings ? (['keeps-siblings'] as const) : []),
      strategy.pivots === true ? 'pivots' : 'goes-on',
    ]),
    create: async () => bed,
  };
}

/** One thing that every strategy must do. */
export type CommitCase = ComplianceCase<StrategyTestBed, StrategyAbility>;

/** A case for each rule. */
export const commitKit: readonly CommitCase[] = (Object.keys(rules) as RuleId[]).map((id) => ({
  ...rules[id],
  id,
  run: async (bed) => {
    const finding = (await bed.report()).findings.get(id);
    if (finding !== undefined)
      throw new Error(`broken ${finding.count} times, first: ${finding.first}`);
  },
}));
