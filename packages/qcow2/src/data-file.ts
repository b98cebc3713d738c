import { imageError } from './corrupt.ts';
import { isExternal } from './l2-entry.ts';
import type { Qcow2State } from './state.ts';

/** @throws ImageError `IMAGE_UNSUPPORTED` for what needs host clusters of its own, when guest data is in an external file. */
export function assertOwnData(state: Qcow2State, what: string): void {
  if (!isExternal(state)) return;
  const feature = `${what} in an image with an external data file`;
  throw imageError('IMAGE_UNSUPPORTED', state.label, feature, undefined, { feature });
}
