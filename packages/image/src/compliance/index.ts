import { backingCases } from './backing-cases.ts';
import type { ImageCase } from './cases.ts';
import { checkCases } from './check-cases.ts';
import { concurrencyCases } from './concurrency-cases.ts';
import { copyCases } from './copy-cases.ts';
import { crashCases } from './crash-cases.ts';
import { deallocateCases } from './deallocate-cases.ts';
import { extentsCases } from './extents-cases.ts';
import { flushCases } from './flush-cases.ts';
import { formatCases } from './format-cases.ts';
import { markCases } from './mark-cases.ts';
import { randomCases } from './random-cases.ts';
import { readCases } from './read-cases.ts';
import { refusalCases } from './refusal-cases.ts';
import { resizeCases } from './resize-cases.ts';
import { stageCases } from './stage-cases.ts';
import { writeCases } from './write-cases.ts';
import { zeroCases } from './zero-cases.ts';

export type { ImageCase } from './cases.ts';
export { type ImageSubject, ImageTestBed, imageSubject } from './test-bed.ts';

/** What every image format must do; run it with `verify` of `@downfold/compliance` on `imageSubject(...)`. */
export const imageKit: readonly ImageCase[] = [
  ...formatCases,
  ...extentsCases,
  ...readCases,
  ...writeCases,
  ...copyCases,
  ...zeroCases,
  ...deallocateCases,
  ...resizeCases,
  ...backingCases,
  ...markCases,
  ...flushCases,
  ...checkCases,
  ...refusalCases,
  ...concurrencyCases,
  ...randomCases,
  ...crashCases,
  ...stageCases,
];
