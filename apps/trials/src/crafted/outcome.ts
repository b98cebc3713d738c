import { BUDGET } from '../tools/budget.ts';
import type { CraftedCase, Step, Verdict } from './case.ts';

/** What the probe saw of one image. */
export interface Outcome {
  readonly name: string;
  /** The step that was refused; null: none was. */
  readonly refusedAt: Step | null;
  /** Code of the error; null when there was none, or when it was no DownfoldError. */
  readonly code: string | null;
  readonly message: string | null;
  /** First sampled byte that is not as the case says; null: all are, or nothing was read. */
  readonly wrongByte: number | null;
  readonly verdict: Verdict | null;
  /** Open, map and read; then the check. */
  readonly readMilliseconds: number;
  readonly checkMilliseconds: number;
  /** Growth of the resident set while the image was open, at its peak. */
  readonly grownBytes: number;
  /** Real paths that were opened for data. */
  readonly opened: readonly string[];
}

/** What is wrong with how an image was treated, one line each; empty: nothing. */
export function faultsOf(item: CraftedCase, outcome: Outcome, own: string): string[] {
  return [
    ...wrongTreatment(item, outcome),
    ...outcome.opened
      .filter((path) => path !== own && !path.startsWith(`${own}/`))
      .map((path) => `opened ${path}, outside its directory`),
    ...overBudget(outcome),
  ].map((fault) => `${item.name} (${item.because}): ${fault}`);
}

/** Whether the only faults are costs: worth a second look on a busy machine. */
export function overBudget(outcome: Outcome): string[] {
  const { readMilliseconds, checkMilliseconds, grownBytes } = outcome;
  const faults: string[] = [];
  if (readMilliseconds > BUDGET.milliseconds)
    faults.push(`reading took ${readMilliseconds.toFixed(0)} ms`);
  if (checkMilliseconds > BUDGET.milliseconds)
    faults.push(`the check took ${checkMilliseconds.toFixed(0)} ms`);
  if (grownBytes > BUDGET.bytes) faults.push(`memory grew by ${grownBytes} bytes`);
  return faults;
}

function wrongTreatment({ expected }: CraftedCase, outcome: Outcome): string[] {
  if (outcome.refusedAt !== null) {
    const said = `${outcome.code ?? 'no code'}: ${outcome.message} (at ${outcome.refusedAt})`;
    if (expected.at !== undefined && expected.at !== outcome.refusedAt)
      return [`refused with ${said}; right: at ${expected.at}`];
    if (outcome.code === null) return [`failed with an untyped error: ${said}`];
    if (expected.codes?.includes(outcome.code) === true)
      return outcome.wrongByte === null ? [] : [`byte ${outcome.wrongByte} reads wrong`];
    return [`refused with ${said}; right: ${expected.codes?.join(' or ') ?? 'to read it'}`];
  }
  if (expected.at !== undefined || (expected.view === undefined && expected.check === undefined))
    return [`was read; right: ${expected.codes?.join(' or ')}`];
  const faults: string[] = [];
  if (outcome.wrongByte !== null) faults.push(`byte ${outcome.wrongByte} reads wrong`);
  const { verdict } = outcome;
  if (expected.check !== undefined && verdict !== null && !expected.check.includes(verdict))
    faults.push(`check says ${verdict}; right: ${expected.check.join(' or ')}`);
  return faults;
}
