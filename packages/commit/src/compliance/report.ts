import type { RuleId } from './rules.ts';

/** How often a rule was broken, and how it was the first time. */
export interface Finding {
  readonly count: number;
  readonly first: string;
}

/** What came of many settings. */
export class Report {
  /** Settings that were planned and run; and those that the strategy refused. */
  settings = 0;
  refused = 0;
  /** Settings in which a rule was broken. */
  failed = 0;
  /** Different states of images and journal that crashes left. */
  crashStates = 0;
  /** From how many of them the job went on to its end. */
  resumes = 0;
  /** Steps of first and resumed runs. */
  steps = 0;
  violations = 0;
  readonly findings: Map<RuleId, Finding> = new Map();

  found(rule: RuleId, message: () => string): void {
    const before = this.findings.get(rule);
    this.violations++;
    this.findings.set(rule, {
      count: (before?.count ?? 0) + 1,
      first: before?.first ?? message(),
    });
  }

  /** In one line. */
  toString(): string {
    const figure = (count: number): string => count.toLocaleString('en');
    const refused = this.refused === 0 ? '' : ` (${figure(this.refused)} more refused)`;
    return `${figure(this.settings)} settings${refused}, ${figure(this.crashStates)} crash states, ${figure(this.resumes)} resumed to the end, ${figure(this.steps)} steps, ${figure(this.violations)} violations`;
  }
}
