import { expect, test } from 'vitest';
import { certain } from '../src/certain.ts';

const [ENOENT, ENXIO, EAGAIN] = [2, 6, 11];

/** A call that returns `results` one after another, its reasons, and how often it was made. */
function scripted(results: readonly number[], reasons: readonly number[]) {
  const [left, why] = [[...results], [...reasons]];
  const call = (): number => left.shift() ?? -1;
  const errno = (): number => why.shift() ?? 0;
  return { call, errno, made: () => results.length - left.length };
}

test('what succeeds is made once', () => {
  const { call, errno, made } = scripted([7, 8], []);
  expect([certain(call, errno), made()]).toEqual([7, 1]);
});

test('a reason that is said twice is the reason', () => {
  const { call, errno, made } = scripted([-1, -1, 5], [ENXIO, ENXIO]);
  expect([certain(call, errno), made()]).toEqual([-ENXIO, 2]);
});

test('a reason that was overwritten does not count', () => {
  expect(certain(() => -1, scripted([], [ENOENT, ENXIO, ENXIO]).errno)).toBe(-ENXIO);
  expect(certain(() => -1, scripted([], [ENXIO, ENOENT, ENXIO, ENXIO]).errno)).toBe(-ENXIO);
});

test('what succeeds the second time has succeeded', () => {
  const { call, errno } = scripted([-1, 9], [EAGAIN]);
  expect(certain(call, errno)).toBe(9);
});

test('a call that never gives the same reason ends, with the last', () => {
  let reason = 0;
  expect(
    certain(
      () => -1,
      () => ++reason,
    ),
  ).toBe(-8);
});
