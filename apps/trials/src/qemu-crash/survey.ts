import type { Recording } from '@downfold/storage-memory';
import { scratch } from '../tools/scratch.ts';
import { CONFIRM_BAD, CONFIRM_SOME, type Count, countStates, type SecondLook } from './count.ts';
import { OPERATIONS, type Operation, serverOperations } from './operations.ts';
import { OUR_JOBS, type OurJob, recordOurs, recordTraced } from './record.ts';

/** What was done, by QEMU and by us, on the same chains. */
export interface Survey {
  readonly qemu: readonly Count[];
  readonly ours: readonly Count[];
}

/** What to look at. */
export interface SurveyOptions {
  /** Each makes a chain. */
  readonly seeds: readonly number[];
  readonly operations?: readonly Operation[];
  readonly jobs?: readonly OurJob[];
  readonly served?: readonly Operation[];
}

/** Records, replays and judges; the counts of all seeds added up. */
export async function survey(options: SurveyOptions): Promise<Survey> {
  const { seeds, operations = OPERATIONS, jobs = OUR_JOBS, served = serverOperations() } = options;
  const qemu: Count[] = [];
  for (const operation of operations)
    qemu.push(
      await countAll(operation.name, seeds, CONFIRM_BAD, (seed, directory) =>
        recordTraced(operation, seed, directory),
      ),
    );
  const ours: Count[] = [];
  for (const job of jobs)
    ours.push(
      await countAll(job.name, seeds, CONFIRM_SOME, (seed, directory) =>
        recordOurs(job, seed, directory),
      ),
    );
  for (const operation of served)
    ours.push(
      await countAll(operation.name, seeds, CONFIRM_SOME, (seed, directory) =>
        recordTraced(operation, seed, directory),
      ),
    );
  return { qemu, ours };
}

async function countAll(
  name: string,
  seeds: readonly number[],
  second: SecondLook,
  record: (seed: number, directory: string) => Promise<Recording>,
): Promise<Count> {
  let sum: Count | null = null;
  for (const seed of seeds) {
    await using directory = await scratch('qemu-crash');
    const recording = await record(seed, `${directory.path}/chain`);
    const count = await countStates(name, recording, `${directory.path}/look`, second);
    sum = sum === null ? count : add(sum, count);
  }
  if (sum === null) throw new RangeError('no seeds');
  return sum;
}

function add(one: Count, other: Count): Count {
  return {
    operation: one.operation,
    calls: one.calls + other.calls,
    states: one.states + other.states,
    bad: one.bad + other.bad,
    kills: one.kills + other.kills,
    badKills: one.badKills + other.badKills,
    lostAfterSuccess: one.lostAfterSuccess || other.lostAfterSuccess,
    disputed: one.disputed + other.disputed,
  };
}
