import type { Clock } from '@downfold/commit';
import { seededRandom } from '@downfold/compliance';
import { describe, expect, test } from 'vitest';
import {
  type JobControl,
  type JobState,
  Jobs,
  type JobVerb,
  type JobWork,
  type OnError,
  TAKEN,
} from '../src/index.ts';
import { clockOf, settled, Trial } from './support.ts';

/** Orders and words: transcripts of QEMU 7.2.22, facts on the toolchain, appendix B. */

describe('order of events', () => {
  test('an intermediate commit', async () => {
    const trial = new Trial();
    expect(trial.events).toEqual(['created']);
    await trial.go();
    await trial.job.over;
    expect(trial.events.join(' ')).toBe(
      'created running waiting pending BLOCK_JOB_COMPLETED concluded null',
    );
    expect(trial.done).toEqual(['finish complete']);
    expect(trial.said.find(({ event }) => event === 'BLOCK_JOB_COMPLETED')?.data).toEqual({
      type: 'commit',
      device: 'c0',
      len: 3 << 20,
      offset: 3 << 20,
      speed: 0,
    });
  });

  test('an active commit that is completed', async () => {
    const trial = new Trial({}, { active: true });
    await trial.go();
    expect(trial.events.join(' ')).toBe('created running ready BLOCK_JOB_READY');
    expect(trial.job.blockInfo()).toMatchObject({ ready: true, status: 'ready' });
    trial.job.complete();
    await trial.job.over;
    expect(trial.events.slice(4).join(' ')).toBe(
      'waiting pending BLOCK_JOB_COMPLETED concluded null',
    );
    expect(trial.done).toEqual(['complete', 'finish complete']);
  });

  test('a ready job that is cancelled softly is completed, and told how', async () => {
    const trial = new Trial({}, { active: true });
    await trial.go();
    trial.job.cancel({ force: false });
    await trial.job.over;
    expect(trial.events).toContain('BLOCK_JOB_COMPLETED');
    expect(trial.done).toEqual(['cancel', 'finish cancel']);
  });

  test.each([
    { when: 'running, softly', pieces: 1, force: false },
    { when: 'running, by force', pieces: 1, force: true },
    { when: 'ready, by force', pieces: 3, force: true },
  ])('a job cancelled while $when leaves everything as it was', async ({ pieces, force }) => {
    const trial = new Trial({}, { active: true });
    await trial.go(pieces);
    trial.job.cancel({ force });
    await trial.job.over;
    expect(trial.events.slice(-4).join(' ')).toBe('aborting BLOCK_JOB_CANCELLED concluded null');
    expect(trial.done).toEqual(['give up']);
    expect(trial.job.info().error).toBe('Operation canceled');
  });

  test('a job cancelled before it began never ran', async () => {
    const trial = new Trial();
    trial.job.cancel({ force: true });
    await trial.job.over;
    expect(trial.events.join(' ')).toBe('created aborting BLOCK_JOB_CANCELLED concluded null');
    expect(trial.control).toBeNull();
  });

  test.each(['run', 'finish'] as const)('a failure in %s', async (where) => {
    const failing = async (): Promise<never> => {
      throw new Error('no luck');
    };
    const trial = new Trial({}, { work: { [where]: failing } });
    await trial.go();
    await trial.job.over;
    const before = where === 'run' ? 'created running' : 'created running waiting pending';
    expect(trial.events.join(' ')).toBe(`${before} aborting BLOCK_JOB_COMPLETED concluded null`);
    expect(trial.said.find(({ event }) => event === 'BLOCK_JOB_COMPLETED')?.data).toMatchObject({
      error: 'no luck',
    });
    expect(trial.done).toEqual(['give up']);
  });

  test('what became of a failed job is told with its error, of a cancelled one it is not', async () => {
    const run = async ({ signal }: JobControl): Promise<never> => {
      signal.throwIfAborted();
      throw new Error('no luck');
    };
    const work = { run, giveUp: async () => 'it was given up' };
    const failed = new Trial({}, { work });
    await failed.job.over;
    expect(failed.said.find(({ event }) => event === 'BLOCK_JOB_COMPLETED')?.data).toMatchObject({
      error: 'no luck; it was given up',
    });
    const cancelled = new Trial({}, { work });
    cancelled.job.cancel({ force: true });
    await cancelled.job.over;
    expect(cancelled.job.info().error).toBe('Operation canceled');
  });
});

describe('who decides', () => {
  test('without auto-finalize nothing is switched before the user says so', async () => {
    const trial = new Trial({ autoFinalize: false });
    await trial.go();
    expect(trial.events.slice(-3)).toEqual(['waiting', 'pending', 'BLOCK_JOB_PENDING']);
    expect(trial.done).toEqual([]);
    trial.job.finalize();
    await trial.job.over;
    expect(trial.done).toEqual(['finish complete']);
  });

  test('a pending job can still be cancelled', async () => {
    const trial = new Trial({ autoFinalize: false });
    await trial.go();
    trial.job.cancel({ force: false });
    await trial.job.over;
    expect(trial.events.slice(-4)).toEqual([
      'aborting',
      'BLOCK_JOB_CANCELLED',
      'concluded',
      'null',
    ]);
    expect(trial.done).toEqual(['give up']);
  });

  test.each([
    { how: 'softly', force: false },
    { how: 'by force', force: true },
  ])('a job that switches links is cancelled no more, $how', async ({ force }) => {
    const switched = Promise.withResolvers<void>();
    const trial = new Trial({}, { active: true, work: { finish: () => switched.promise } });
    await trial.go();
    trial.job.complete();
    await settled();
    expect(trial.job.takes('cancel')).toBe(false);
    expect(() => trial.job.cancel({ force })).toThrow(
      "Job 'c0' in state 'pending' cannot accept command verb 'cancel'",
    );
    expect(trial.control?.signal.aborted).toBe(false);
    switched.resolve();
    await trial.job.over;
    expect(trial.events.slice(-3)).toEqual(['BLOCK_JOB_COMPLETED', 'concluded', 'null']);
    expect(trial.done).toEqual(['complete']);
  });

  test('a cancellation right behind `finalize` comes before the switch', async () => {
    const trial = new Trial({ autoFinalize: false });
    await trial.go();
    trial.job.finalize();
    trial.job.cancel({ force: true });
    await trial.job.over;
    expect(trial.events).toContain('BLOCK_JOB_CANCELLED');
    expect(trial.done).toEqual(['give up']);
  });

  test('without auto-dismiss it is remembered until then', async () => {
    const jobs = new Jobs();
    const quick = { run: async () => {}, finish: async () => {}, giveUp: async () => null };
    const emit = (): void => {};
    const job = jobs.start(quick, {
      id: 'a',
      type: 'stream',
      clock: clockOf(),
      emit,
      autoDismiss: false,
    });
    await settled();
    expect(jobs.find('a').info()).toMatchObject({ status: 'concluded', type: 'stream' });
    job.dismiss();
    await job.over;
    await settled();
    expect([...jobs]).toEqual([]);
  });
});

/** Brings a job into a state, to stay there. */
async function inState(state: JobState): Promise<Trial> {
  const trial = new Trial(
    { autoFinalize: false, autoDismiss: false },
    { active: state === 'ready' || state === 'standby' },
  );
  await trial.go(1);
  if (state === 'running') return trial;
  if (state === 'paused') {
    trial.job.pause();
    await trial.go(1);
    return trial;
  }
  await trial.go(2);
  if (state === 'standby') trial.job.pause();
  if (state === 'concluded') trial.job.finalize();
  await settled();
  return trial;
}

describe('verbs', () => {
  const verbs: Readonly<Record<JobVerb, (trial: Trial) => void>> = {
    cancel: ({ job }) => job.cancel({ force: true }),
    pause: ({ job }) => job.pause(),
    resume: ({ job }) => job.resume(),
    'set-speed': ({ job }) => job.setSpeed(7),
    complete: ({ job }) => job.complete(),
    finalize: ({ job }) => job.finalize(),
    dismiss: ({ job }) => job.dismiss(),
  };
  const states = [
    'created',
    'running',
    'paused',
    'ready',
    'standby',
    'pending',
    'concluded',
  ] as const;
  test.each(
    states.flatMap((state) => Object.keys(verbs).map((verb) => ({ state, verb: verb as JobVerb }))),
  )('$verb in $state', async ({ state, verb }) => {
    // it leaves `created` at once
    const trial = state === 'created' ? new Trial() : await inState(state);
    expect(trial.job.state).toBe(state);
    let message: string | null = null;
    try {
      verbs[verb](trial);
    } catch (cause) {
      message = (cause as Error).message;
    }
    const words = `Job 'c0' in state '${state}' cannot accept command verb '${verb}'`;
    if (TAKEN[verb].includes(state)) expect(message).not.toBe(words);
    else expect(message).toBe(words);
  });

  test('a pause takes effect where the work asks for leave, and once', async () => {
    const trial = new Trial();
    await trial.go(1);
    trial.job.pause();
    expect(trial.job.state).toBe('running');
    expect(() => trial.job.pause()).toThrow('Job is already paused');
    await trial.go(1);
    expect(trial.job.info()).toMatchObject({ status: 'paused', 'current-progress': 1 << 20 });
    trial.job.resume();
    expect(() => trial.job.resume()).toThrow("Can't resume a job that was not paused");
    await trial.go(2);
    await trial.job.over;
    expect(trial.events.join(' ')).toBe(
      'created running paused running waiting pending BLOCK_JOB_COMPLETED concluded null',
    );
  });

  test('a paused job switches nothing, though all its data is in place', async () => {
    const trial = new Trial({}, { work: { run: settled } });
    trial.job.pause();
    await settled();
    await settled();
    expect(trial.job.state).toBe('paused');
    expect(trial.done).toEqual([]);
    trial.job.resume();
    await trial.job.over;
    expect(trial.done).toEqual(['finish complete']);
  });

  test('a ready job stands by until it is resumed, also when it is to end meanwhile', async () => {
    const trial = await inState('standby');
    trial.job.complete();
    await settled();
    expect(trial.job.state).toBe('standby');
    trial.job.resume();
    await settled();
    expect(trial.events.slice(-5)).toEqual([
      'standby',
      'ready',
      'waiting',
      'pending',
      'BLOCK_JOB_PENDING',
    ]);
  });

  test.each(['paused', 'standby'] as const)(
    'a job that is %s can be cancelled by force only',
    async (state) => {
      const trial = await inState(state);
      expect(() => trial.job.cancel({ force: false })).toThrow(
        "The block job for device 'c0' is currently paused",
      );
      trial.job.cancel({ force: true });
      await settled();
      expect(trial.done).toEqual(['give up']);
    },
  );

  test('a job that is ending cannot be completed again', async () => {
    const trial = new Trial({}, { active: true });
    await trial.go();
    trial.job.complete();
    expect(() => trial.job.complete()).toThrow("The active block job 'c0' cannot be completed");
  });

  test('speed is kept, and may change on the way', async () => {
    const clock = clockOf();
    const trial = new Trial({ clock, speed: 1 << 20 }, { pieces: 6 });
    await trial.go(4);
    // the first passes at once, each later one waits for the one before
    expect(clock.slept).toBe(3000);
    trial.job.setSpeed(0);
    await trial.go(2);
    expect(clock.slept).toBe(3000);
    expect(() => trial.job.setSpeed(-1)).toThrow(/cannot accept|non-negative/);
  });
});

describe('errors', () => {
  const cases: readonly { policy: OnError; noSpace: boolean; action: string }[] = [
    { policy: 'report', noSpace: false, action: 'report' },
    { policy: 'stop', noSpace: false, action: 'stop' },
    { policy: 'stop', noSpace: true, action: 'stop' },
    { policy: 'ignore', noSpace: true, action: 'ignore' },
    { policy: 'enospc', noSpace: true, action: 'stop' },
    { policy: 'enospc', noSpace: false, action: 'report' },
    { policy: 'auto', noSpace: true, action: 'stop' },
  ];
  test.each(cases)('$policy, no space: $noSpace', async ({ policy, noSpace, action }) => {
    let failures = 0;
    const trial: Trial = new Trial(
      { onError: policy },
      {
        work: {
          run: async (control) => {
            while (failures++ < 1)
              if ((await control.failed('write', { noSpace })) === 'give up')
                throw new Error('Input/output error');
          },
        },
      },
    );
    await settled();
    const told = trial.said.find(({ event }) => event === 'BLOCK_JOB_ERROR')?.data;
    expect(told).toEqual({ device: 'c0', operation: 'write', action });
    if (action === 'stop') {
      expect(trial.job.blockInfo()).toMatchObject({
        status: 'paused',
        'io-status': noSpace ? 'nospace' : 'failed',
      });
      trial.job.resume();
      expect(trial.job.blockInfo()['io-status']).toBe('ok');
    }
    await trial.job.over;
    expect(trial.done).toEqual([action === 'report' ? 'give up' : 'finish complete']);
  });
});

describe('a job that tries again by itself', () => {
  const passing = { noSpace: false };

  /** A clock that notes how long it is told to sleep; `patient`: it never wakes by itself. */
  function noting({ patient = false } = {}): { readonly slept: number[]; readonly clock: Clock } {
    const slept: number[] = [];
    const sleep: Clock['sleep'] = async (milliseconds, signal) => {
      slept.push(milliseconds);
      signal?.throwIfAborted();
      if (!patient) return;
      await new Promise((_resolve, reject) => {
        signal?.addEventListener('abort', () => reject(signal.reason), { once: true });
      });
    };
    return { slept, clock: { ...clockOf(), sleep } };
  }

  /** Work that fails whenever it is tried. */
  const failing: Partial<JobWork> = {
    run: async (control) => {
      do await settled();
      while ((await control.failed('read', passing)) === 'again');
    },
  };

  test('does so less and less often, and soon again once it got on', async () => {
    const { slept, clock } = noting();
    const run: JobWork['run'] = async (control) => {
      control.progress(0, 100);
      for (let time = 0; time < 8; time++) await control.failed('read', passing);
      // as far as before, and no further
      control.progress(10, 100);
      await control.failed('read', passing);
      control.progress(0, 100);
      control.progress(10, 100);
      await control.failed('read', passing);
      control.progress(20, 100);
      await control.failed('read', passing);
    };
    const trial = new Trial({ onError: 'ignore', clock }, { work: { run } });
    await trial.job.over;
    expect(slept).toEqual([100, 200, 400, 800, 1600, 3200, 5000, 5000, 100, 200, 100]);
  });

  test('a cancellation ends the wait at once', async () => {
    const { slept, clock } = noting({ patient: true });
    const trial = new Trial({ onError: 'ignore', clock }, { work: failing });
    await expect.poll(() => slept).toEqual([100]);
    trial.job.cancel({ force: true });
    await trial.job.over;
    expect(trial.events).toContain('BLOCK_JOB_CANCELLED');
  });

  test('so does a pause; whoever resumes it has it tried at once', async () => {
    const { slept, clock } = noting({ patient: true });
    const trial = new Trial({ onError: 'ignore', clock }, { work: failing });
    await expect.poll(() => slept).toEqual([100]);
    trial.job.pause();
    await expect.poll(() => trial.job.state).toBe('paused');
    expect(slept).toEqual([100]);
    trial.job.resume();
    await expect.poll(() => slept).toEqual([100, 200]);
    expect(trial.job.state).toBe('running');
    trial.job.cancel({ force: true });
    await trial.job.over;
  });
});

test('an error at the very end is reported, whatever the policy: nobody could resume the job there', async () => {
  let working: JobControl | null = null;
  const trial = new Trial(
    { onError: 'stop', autoFinalize: false },
    {
      work: {
        run: async (control) => {
          working = control;
        },
        finish: async () => {
          if ((await working?.failed('write', { noSpace: true })) === 'give up')
            throw new Error('No space left on device');
        },
      },
    },
  );
  await settled();
  expect(trial.job.state).toBe('pending');
  trial.job.finalize();
  await trial.job.over;
  expect(trial.said.find(({ event }) => event === 'BLOCK_JOB_ERROR')?.data).toEqual({
    device: 'c0',
    operation: 'write',
    action: 'report',
  });
});

describe('ids', () => {
  const quick = { run: async () => {}, finish: async () => {}, giveUp: async () => null };
  const options = { type: 'commit', clock: clockOf(), emit: () => {} } as const;
  test.each(['', '1a', '#x', 'a b', 'ä'])('not %j', (id) => {
    expect(() => new Jobs().start(quick, { ...options, id })).toThrow(`Invalid job ID '${id}'`);
  });

  test('each once, until it is over', async () => {
    const jobs = new Jobs();
    const job = jobs.start(quick, { ...options, id: 'a.b-c_1' });
    expect(() => jobs.start(quick, { ...options, id: 'a.b-c_1' })).toThrow(
      "Job ID 'a.b-c_1' already in use",
    );
    await job.over;
    await settled();
    expect(() => jobs.find('a.b-c_1')).toThrow('Job not found');
    jobs.start(quick, { ...options, id: 'a.b-c_1' });
  });
});

/** What the machine itself asserts, no illegal transition, and that every job ends one way, whatever is asked of it when. */
test.each(Array.from({ length: 300 }, (_, index) => index + 1))(
  'random verbs, seed %i',
  async (seed) => {
    const random = seededRandom(seed);
    const chance = (share: number): boolean => random() < share;
    const trial = new Trial(
      {
        autoFinalize: chance(0.7),
        autoDismiss: chance(0.7),
        onError: chance(0.5) ? 'stop' : 'report',
      },
      { active: chance(0.5), pieces: 1 + Math.floor(random() * 4) },
    );
    const { job } = trial;
    const verbs = [
      () => job.pause(),
      () => job.resume(),
      () => job.resume(),
      () => job.setSpeed(Math.floor(random() * 100)),
      () => job.complete(),
      () => job.finalize(),
      () => job.cancel({ force: chance(0.3) }),
    ];
    for (let turn = 0; turn < 12 && job.state !== 'null'; turn++) {
      if (chance(0.5)) await trial.go(1);
      try {
        verbs[Math.floor(random() * verbs.length)]?.();
      } catch (cause) {
        expect(cause).toMatchObject({ name: 'JobError' });
      }
      if (chance(0.5)) await settled();
    }
    for (const last of [() => job.cancel({ force: true }), () => job.dismiss()]) {
      try {
        last();
      } catch (cause) {
        expect(cause).toMatchObject({ code: 'JOB_WRONG_STATE' });
      }
      await settled();
    }
    await job.over;
    const ends = trial.done.filter((one) => one.startsWith('finish') || one === 'give up');
    expect(ends).toHaveLength(1);
    const told = trial.events.filter((one) => /COMPLETED|CANCELLED/.test(one));
    expect(told).toHaveLength(1);
    expect(trial.events.slice(-2)).toEqual(['concluded', 'null']);
  },
);
