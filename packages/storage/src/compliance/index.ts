import { absentCases } from './absent-cases.ts';
import { concurrentCases } from './concurrent-cases.ts';
import { copyCases } from './copy-cases.ts';
import { factsCases } from './facts-cases.ts';
import { fixedCases } from './fixed-cases.ts';
import { flushCases } from './flush-cases.ts';
import { lengthCases } from './length-cases.ts';
import { lockCases } from './lock-cases.ts';
import { nameCases } from './name-cases.ts';
import { randomCases } from './random-cases.ts';
import { readCases } from './read-cases.ts';
import { runCases } from './run-cases.ts';
import { sparseCases } from './sparse-cases.ts';
import { stateCases } from './state-cases.ts';
import type { StorageCase } from './subject.ts';
import { writeCases } from './write-cases.ts';

export type { StorageAbility, StorageCase, StorageHooks, StorageSubject } from './subject.ts';

/** What every backend must do. Run it with `verify` of `@downfold/compliance`. */
export const storageKit: readonly StorageCase[] = [
  ...readCases,
  ...writeCases,
  ...copyCases,
  ...lengthCases,
  ...flushCases,
  ...stateCases,
  ...nameCases,
  ...lockCases,
  ...factsCases,
  ...sparseCases,
  ...runCases,
  ...concurrentCases,
  ...randomCases,
  ...fixedCases,
  ...absentCases,
];
