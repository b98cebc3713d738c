import { StorageError, type StorageErrorCode } from '@downfold/storage';
import { expect, it } from 'vitest';
import { CommitError, type CommitResult, type Failure } from '../src/index.ts';
import { retrying } from '../src/retry.ts';

const done = { job: 'done' } as CommitResult;

function failure(code: StorageErrorCode): StorageError {
  return new StorageError(code, code);
}

/** A job that was stopped by an error of storage after it had copied some. */
function stopped(code: StorageErrorCode, copied: number): CommitError {
  return new CommitError('COMMIT_STOPPED', 'stopped', { copied }, failure(code));
}

/** An attempt that rejects with each of these in turn, then resolves; counts its calls. */
function attempt(...errors: readonly Error[]): { (): Promise<CommitResult>; calls: number } {
  const left = [...errors];
  const run = async (): Promise<CommitResult> => {
    run.calls++;
    const error = left.shift();
    if (error !== undefined) throw error;
    return done;
  };
  run.calls = 0;
  return run;
}

function asked(answer: boolean): {
  ask: (failure: Failure) => Promise<boolean>;
  failures: Failure[];
} {
  const failures: Failure[] = [];
  const ask = async (one: Failure): Promise<boolean> => {
    failures.push(one);
    return answer;
  };
  return { ask, failures };
}

it('asks nobody when all is well', async () => {
  const { ask, failures } = asked(true);
  expect(await retrying(attempt(), { onFailure: ask })).toBe(done);
  expect(failures).toEqual([]);
});

it('tries again as often as it takes, before and after the job was begun', async () => {
  const work = attempt(
    failure('STORAGE_IO'),
    stopped('STORAGE_NO_SPACE', 512),
    failure('STORAGE_NO_SPACE'),
    stopped('STORAGE_IO', 1024),
  );
  const { ask, failures } = asked(true);
  expect(await retrying(work, { onFailure: ask })).toBe(done);
  expect(work.calls).toBe(5);
  expect(failures.map(({ error, copied }) => [error.code, copied])).toEqual([
    ['STORAGE_IO', 0],
    ['STORAGE_NO_SPACE', 512],
    ['STORAGE_NO_SPACE', 0],
    ['STORAGE_IO', 1024],
  ]);
});

it('rejects with the failure when the answer is no, or nobody can be asked', async () => {
  const error = stopped('STORAGE_IO', 0);
  const { ask } = asked(false);
  await expect(retrying(attempt(error), { onFailure: ask })).rejects.toBe(error);
  await expect(retrying(attempt(error), {})).rejects.toBe(error);
});

it('never asks after a failed flush, a refusal or a defect', async () => {
  const { ask, failures } = asked(true);
  for (const error of [
    failure('STORAGE_FLUSH_FAILED'),
    stopped('STORAGE_FLUSH_FAILED', 0),
    new CommitError('COMMIT_CHANGED', 'changed'),
    new TypeError('undefined is not an image'),
  ])
    await expect(retrying(attempt(error), { onFailure: ask })).rejects.toBe(error);
  expect(failures).toEqual([]);
});
