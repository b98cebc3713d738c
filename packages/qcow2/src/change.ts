import type { OperationOptions } from '@downfold/storage';
import { type Change, claims, disclaim } from './autoclear.ts';
import { imageError } from './corrupt.ts';
import { assertNotStaged } from './stage-state.ts';
import type { Qcow2State } from './state.ts';
import { mutate, writerOf } from './writer.ts';

/** @throws ImageError `IMAGE_CLOSED`. */
export function assertOpen(state: Qcow2State): void {
  if (state.closed) throw imageError('IMAGE_CLOSED', state.label, 'is closed');
}

/** Runs a change in its turn. It may be refused, and what it makes untrue goes first. */
export async function changeImage<T>(
  state: Qcow2State,
  change: Change,
  options: OperationOptions | undefined,
  work: () => Promise<T>,
): Promise<T> {
  assertOpen(state);
  options?.signal?.throwIfAborted();
  writerOf(state);
  return mutate(state, async () => {
    assertNotStaged(state);
    if (claims(state, change)) await disclaim(state, change);
    return work();
  });
}
