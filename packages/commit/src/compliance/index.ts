export { planIn, stepsIn } from './rehearse.ts';
export type { Finding, Report } from './report.ts';
export type { RuleId, StrategyAbility } from './rules.ts';
export type { Scope } from './scope.ts';
export type { Setting, SettingImage } from './setting.ts';
export {
  type CommitCase,
  commitKit,
  type StrategyOptions,
  StrategyTestBed,
  strategySubject,
} from './subject.ts';
