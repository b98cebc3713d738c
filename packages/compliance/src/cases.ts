/** What a case may use besides its subject. */
export interface CaseContext {
  /** Printed with a failure; the same seed gives the same run. */
  readonly seed: number;
  /** Uniform in [0, 1), drawn from the seed. */
  random(): number;
  /** Uniform whole number in [0, below). */
  integer(below: number): number;
  /** `length` bytes drawn from the seed. */
  bytes(length: number): Uint8Array;
}

/** One thing that every implementation of a contract must do; plain data, so kits can be listed and counted. */
export interface ComplianceCase<Subject, Ability extends string = never> {
  /** Stable name, e.g. `read/past-end-is-zero`. */
  readonly id: string;
  /** Why callers rely on it, with the source. */
  readonly because: string;
  /** Runs only on subjects that declare all of these. */
  readonly needs?: readonly Ability[];
  /** Runs only on subjects that do NOT declare this: proves that the refusal is loud. */
  readonly whenAbsent?: Ability;
  run(subject: Subject, context: CaseContext): Promise<void>;
}

/** How a kit gets at the implementation under test. */
export interface SubjectFactory<Subject, Ability extends string = never> {
  /** Abilities the implementation declares. */
  readonly abilities: ReadonlySet<Ability>;
  /** A fresh subject; disposed after the case when it is disposable. */
  create(): Promise<Subject>;
}

/** The runner's `test`: node:test's, vitest's and mocha's all fit. */
export type TestFunction = (name: string, body: () => Promise<void>) => unknown;
