import { describe, expect, it } from 'vitest';
import { BackOff } from '../src/back-off.ts';

/** A job beneath a disk whose requests take as long as `strainAt` says of the share of time the job works. */
function job(strainAt: (share: number) => number | null) {
  let now = 0;
  let [working, worked] = [0, 0];
  let share = 1;
  const rests: number[] = [];
  const clock = {
    now: () => now,
    sleep: async (milliseconds: number, signal?: AbortSignal) => {
      signal?.throwIfAborted();
      expect(working).toBe(0);
      rests.push(milliseconds);
      now += milliseconds;
    },
    date: () => '',
  };
  const latency = {
    beside: () => {
      working++;
      return () => void working--;
    },
    strain: () => strainAt(share),
  };
  const backOff = new BackOff(latency, clock);
  /** Copies pieces of 4 ms for so long. */
  const run = async (milliseconds: number, signal?: AbortSignal): Promise<number> => {
    const [until, since] = [now + milliseconds, now];
    worked = 0;
    while (now < until) {
      const rest = backOff.due;
      if (rest > 0) await backOff.rest(rest, signal);
      backOff.work();
      now += 4;
      worked += 4;
      share = worked / (now - since);
    }
    return worked / (now - since);
  };
  return { backOff, run, rests, isWorking: () => working > 0 };
}

describe('a job beneath a disk in use', () => {
  it('does not rest while nobody uses the disk', async () => {
    const { run, rests } = job(() => null);
    expect(await run(5000)).toBe(1);
    expect(rests).toEqual([]);
  });

  it('rests a little now and then while requests are as quick as without it', async () => {
    const { run, rests } = job(() => 1);
    expect(await run(10_000)).toBeGreaterThan(0.98);
    expect(rests.length).toBeGreaterThan(5);
  });

  it('works less the slower requests get beside it, until they take twice as long', async () => {
    // six times as long while it works
    const { run } = job((share) => 1 + 5 * share);
    await run(5000);
    const share = await run(20_000);
    expect(share).toBeGreaterThan(0.1);
    expect(share).toBeLessThan(0.35);
  });

  it('gives way within a fraction of a second, and never stands still', async () => {
    const { run, rests } = job(() => 1000);
    await run(700);
    expect(rests.at(-1)).toBe(100);
    expect(await run(10_000)).toBeGreaterThan(0.03);
  });

  it('is at full speed again soon after the guest went away', async () => {
    let isUsed = true;
    const { run } = job(() => (isUsed ? 1000 : null));
    await run(3000);
    isUsed = false;
    await run(200);
    expect(await run(2000)).toBe(1);
  });

  it('a rest ends with the job, and nothing runs beside it then', async () => {
    const { backOff, run, isWorking } = job(() => 1000);
    await run(500);
    await expect(run(500, AbortSignal.abort(new Error('enough')))).rejects.toThrow('enough');
    backOff.work();
    expect(isWorking()).toBe(true);
    backOff.stop();
    backOff.stop();
    expect(isWorking()).toBe(false);
  });
});
