import type { ComplianceCase, SubjectFactory, TestFunction } from './cases.ts';
import { caseContext } from './random.ts';

/** Whether `abilities` make `item` run. */
export function applies<Subject, Ability extends string>(
  item: ComplianceCase<Subject, Ability>,
  abilities: ReadonlySet<Ability>,
): boolean {
  if (item.whenAbsent !== undefined && abilities.has(item.whenAbsent)) return false;
  return (item.needs ?? []).every((ability) => abilities.has(ability));
}

/** Runs one case on a fresh subject. Rejects when the subject breaks the contract. */
export async function runCase<Subject, Ability extends string>(
  item: ComplianceCase<Subject, Ability>,
  factory: SubjectFactory<Subject, Ability>,
  seed: number,
): Promise<void> {
  const subject = await factory.create();
  try {
    await item.run(subject, caseContext(seed));
  } catch (cause) {
    throw new Error(
      `${item.id} (seed ${seed}): ${(cause as Error).message}\n  because ${item.because}`,
      { cause },
    );
  } finally {
    if (isAsyncDisposable(subject)) await subject[Symbol.asyncDispose]();
  }
}

/** Registers every applicable case of a kit with the runner's `test`. */
export function verify<Subject, Ability extends string>(
  kit: readonly ComplianceCase<Subject, Ability>[],
  factory: SubjectFactory<Subject, Ability>,
  test: TestFunction,
  seed = 1,
): void {
  for (const item of kit) {
    if (applies(item, factory.abilities)) test(item.id, () => runCase(item, factory, seed));
  }
}

/**
 * The ids of the cases that a deliberately broken subject fails. Empty means that the mutant
 * survived: the kit has no teeth there.
 */
export async function killers<Subject, Ability extends string>(
  kit: readonly ComplianceCase<Subject, Ability>[],
  mutant: SubjectFactory<Subject, Ability>,
  seed = 1,
): Promise<readonly string[]> {
  const failed: string[] = [];
  for (const item of kit) {
    if (!applies(item, mutant.abilities)) continue;
    await runCase(item, mutant, seed).catch(() => failed.push(item.id));
  }
  return failed;
}

function isAsyncDisposable(value: unknown): value is AsyncDisposable {
  return typeof value === 'object' && value !== null && Symbol.asyncDispose in value;
}
