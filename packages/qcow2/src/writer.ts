import { imageError } from './corrupt.ts';
import type { Qcow2State, Queue, Writer } from './state.ts';

/** The writer's part of a state. @throws ImageError `IMAGE_READ_ONLY`, or `IMAGE_CORRUPT` after a failure. */
export function writerOf(state: Qcow2State): Writer {
  if (state.writer === null)
    throw imageError('IMAGE_READ_ONLY', state.label, 'was opened for reading only');
  const { failure } = state.writer;
  if (failure !== null)
    throw imageError(
      'IMAGE_CORRUPT',
      state.label,
      'takes no more writes after an earlier failure; close it, and check it before it is used again',
      undefined,
      {},
      failure,
    );
  return state.writer;
}

/**
 * Runs `work` after everything queued before it.
 * - `mutation`: changes of tables in memory, and whatever needs that nothing changes meanwhile.
 * - `flush`: writes of tables to the file.
 * - `header`: one change of the header cluster: what is there, the new bytes, the write.
 */
export function inTurn<T>(state: Qcow2State, queue: Queue, work: () => Promise<T>): Promise<T> {
  const { ends } = state.writer as Writer;
  const turn = ends[queue].then(work);
  ends[queue] = turn.catch(() => undefined);
  return turn;
}

/** A change of tables in memory, refused when an earlier one in the queue found that there must be no more. */
export function mutate<T>(state: Qcow2State, work: () => Promise<T>): Promise<T> {
  return inTurn(state, 'mutation', () => {
    writerOf(state);
    return work();
  });
}

/** A barrier. When it fails nobody knows what is durable, and the image takes no more writes. */
export async function flushFile(state: Qcow2State, barrier: string): Promise<void> {
  const writer = writerOf(state);
  try {
    await state.storage.flush(barrier);
  } catch (cause) {
    writer.failure ??= cause;
    throw cause;
  }
}
