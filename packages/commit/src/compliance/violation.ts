import type { RuleId } from './rules.ts';

/** A rule was broken, in a way after which a run of the model cannot go on. */
export class Violation extends Error {
  override readonly name: string = 'Violation';
  readonly rule: RuleId;

  constructor(rule: RuleId, message: string) {
    super(message);
    this.rule = rule;
  }
}
