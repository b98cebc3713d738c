import { deepStrictEqual } from 'node:assert';
import { DownfoldError } from '@downfold/units';
import type { ImageErrorCode } from '../errors.ts';

/** Throws what a broken contract reads like. */
export function fail(problem: string): never {
  throw new Error(problem);
}

/** Plain values that must be the same. */
export function expectEqual(actual: unknown, expected: unknown, what: string): void {
  deepStrictEqual(actual, expected, `${what}: ${show(actual)} instead of ${show(expected)}`);
}

/** `attempt` must reject with an error of code `code`. */
export async function expectRefused(
  attempt: () => Promise<unknown>,
  code: ImageErrorCode,
  what: string,
): Promise<void> {
  const error = await rejectionOf(attempt);
  if (error === null) fail(`${what}: accepted, expected ${code}`);
  if (!(error instanceof DownfoldError) || error.code !== code)
    fail(`${what}: rejected with ${String(error)}, expected ${code}`);
}

/** What `attempt` rejects with (or throws); null when it resolves. */
export async function rejectionOf(attempt: () => Promise<unknown>): Promise<unknown> {
  try {
    await attempt();
    return null;
  } catch (error) {
    return error;
  }
}

function show(value: unknown): string {
  return JSON.stringify(value) ?? String(value);
}
