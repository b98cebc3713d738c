import type { Writer } from './state.ts';

/** Runs `work` after every mutation queued before it. */
export function mutate<T>(writer: Writer, work: () => Promise<T>): Promise<T> {
  const turn = writer.mutation.then(work, work);
  writer.mutation = turn.catch(() => undefined);
  return turn;
}
