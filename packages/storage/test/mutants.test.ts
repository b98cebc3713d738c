import { killers } from '@downfold/compliance';
import { expect, test } from 'vitest';
import { storageKit } from '../src/compliance/index.ts';
import { copyMutants } from './mutants/copy-mutants.ts';
import { fixedMutants } from './mutants/fixed-mutants.ts';
import { flushMutants } from './mutants/flush-mutants.ts';
import { lengthMutants } from './mutants/length-mutants.ts';
import { lockMutants } from './mutants/lock-mutants.ts';
import { nameMutants } from './mutants/name-mutants.ts';
import { runMutants } from './mutants/run-mutants.ts';
import { stateMutants } from './mutants/state-mutants.ts';
import { transferMutants } from './mutants/transfer-mutants.ts';
import { flatSubjects } from './support.ts';

const mutants = [
  ...transferMutants,
  ...copyMutants,
  ...lengthMutants,
  ...flushMutants,
  ...nameMutants,
  ...lockMutants,
  ...stateMutants,
  ...runMutants,
  ...fixedMutants,
];

test.each(mutants)('the kit kills: $name, by $killedBy', async ({ killedBy, ...change }) => {
  const named = storageKit.filter(({ id }) => id === killedBy);
  expect(await killers(named, flatSubjects(change))).toEqual([killedBy]);
});

test('every case kills a mutant: it can fail', () => {
  const killing = new Set(mutants.map(({ killedBy }) => killedBy));
  expect(storageKit.map(({ id }) => id).filter((id) => !killing.has(id))).toEqual([]);
});
