import { verify } from '@downfold/compliance';
import { describe, expect, test } from 'vitest';
import { storageKit } from '../src/compliance/index.ts';
import { readOnly, sealed } from './sealed.ts';
import { flatSubjects, withFiles, withStorages } from './support.ts';

describe('the kit passes', () => {
  describe('the flat backend behind a faulty driver without rules', () =>
    verify(storageKit, flatSubjects(), test));

  describe('decorators of a driver and of a backend that change nothing', () =>
    verify(
      storageKit,
      flatSubjects({
        driver: (driver) => withFiles(driver, () => ({})),
        backend: (backend) => withStorages(backend, () => ({})),
      }),
      test,
    ));

  describe('a backend that can neither discard nor resize', () =>
    verify(
      storageKit,
      flatSubjects({
        without: ['discard', 'resize'],
        driver: (driver) =>
          withFiles(driver, () => ({ supports: { discard: false, resize: false } })),
      }),
      test,
    ));

  describe('a place whose files others make, with a length that stays', () =>
    verify(storageKit, flatSubjects(sealed), test));

  describe('a place where nothing can be written', () =>
    verify(storageKit, flatSubjects(readOnly), test));

  describe.each([2, 3, 4, 5, 6])('with seed %i', (seed) =>
    verify(
      storageKit.filter(({ id }) => id.startsWith('random/')),
      flatSubjects(),
      test,
      seed,
    ),
  );
});

test('ids are stable names, used once, and every case says why', () => {
  const ids = storageKit.map(({ id }) => id);
  expect(new Set(ids).size).toBe(ids.length);
  for (const { id, because } of storageKit) {
    expect(id).toMatch(/^[a-z-]+\/[a-z-]+$/);
    expect(because.length).toBeGreaterThan(10);
  }
});
