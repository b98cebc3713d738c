import { expect, it } from 'vitest';
import { type Clock, Throttle } from '../src/index.ts';

/** A clock that moves when somebody sleeps. */
function fakeClock(): Clock & { time: number } {
  const clock = {
    time: 1000,
    now: () => clock.time,
    sleep: async (milliseconds: number, signal?: AbortSignal) => {
      signal?.throwIfAborted();
      clock.time += milliseconds;
    },
    date: () => '2026-01-01T00:00:00.000Z',
  };
  return clock;
}

it('lets the first piece pass at once, and each further one when those before it are paid for', async () => {
  const clock = fakeClock();
  const throttle = new Throttle(1000, clock);
  const passed: number[] = [];
  for (const bytes of [500, 250, 0, 1000]) {
    await throttle.pass(bytes);
    passed.push(clock.time - 1000);
  }
  expect(passed).toEqual([0, 500, 750, 750]);
});

it('does not save up what was not used', async () => {
  const clock = fakeClock();
  const throttle = new Throttle(1000, clock);
  await throttle.pass(100);
  clock.time += 60_000;
  await throttle.pass(1000);
  const before = clock.time;
  await throttle.pass(1);
  expect(clock.time - before).toBe(1000);
});

it('takes another rate from the next piece on; 0 lifts the limit', async () => {
  const clock = fakeClock();
  const throttle = new Throttle(1, clock);
  await throttle.pass(1_000_000);
  throttle.setRate(1000);
  await throttle.pass(1000);
  await throttle.pass(1000);
  expect(clock.time - 1000).toBe(1000);
  throttle.setRate(0);
  await throttle.pass(1_000_000);
  await throttle.pass(1_000_000);
  expect(clock.time - 1000).toBe(1000);
});

it('does not wait without a limit', async () => {
  const clock = fakeClock();
  const throttle = new Throttle(0, clock);
  for (let piece = 0; piece < 3; piece++) await throttle.pass(1 << 30);
  expect(clock.time).toBe(1000);
});

it('stops waiting when it is told to', async () => {
  const throttle = new Throttle(1, fakeClock());
  await throttle.pass(1000);
  const signal = AbortSignal.abort(new Error('enough'));
  await expect(throttle.pass(1, signal)).rejects.toThrow('enough');
});

/** A clock on which a sleep ends only with its signal. */
const patientClock: Clock = {
  now: () => 0,
  sleep: (_milliseconds, signal) =>
    new Promise((_resolve, reject) =>
      signal?.addEventListener('abort', () => reject(signal.reason), { once: true }),
    ),
  date: () => '2026-01-01T00:00:00.000Z',
};

it('wakes who waits when the rate changes, and when the signal is aborted', async () => {
  const throttle = new Throttle(1, patientClock);
  await throttle.pass(1_000_000);
  const waiting = throttle.pass(1_000_000);
  throttle.setRate(0);
  await waiting;
  throttle.setRate(1);
  await throttle.pass(1_000_000);
  const stop = new AbortController();
  const stopped = throttle.pass(1, stop.signal);
  const reason = new Error('enough');
  stop.abort(reason);
  await expect(stopped).rejects.toBe(reason);
});

it('says how many bytes should pass at once: what 50 ms of the rate allow', () => {
  const throttle = new Throttle(1_000_000, fakeClock());
  expect(throttle.atOnce).toBe(50_000);
  throttle.setRate(20);
  expect(throttle.atOnce).toBe(1);
  throttle.setRate(0);
  expect(throttle.atOnce).toBe(Number.POSITIVE_INFINITY);
});
