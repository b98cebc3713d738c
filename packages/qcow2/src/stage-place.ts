import type { StagingToken } from '@downfold/image';
import { alignUp } from '@downfold/units';
import { imageError } from './corrupt.ts';
import { HARD_LIMITS } from './limits.ts';
import { refcountOf } from './refcounts.ts';
import type { Qcow2State } from './state.ts';
import { ENTRY_BYTES, type HeaderV2 } from './structures.ts';
import { writerOf } from './writer.ts';

/** A staging token's content: where the L1 table of the staging lies, and the virtual size that is published with it. */
export interface StagedPlace {
  /** Bytes. */
  readonly l1Offset: number;
  /** Entries. */
  readonly l1Size: number;
  /** Bytes. */
  readonly virtualSize: number;
}

/** The place that a staging's header names. */
export function placeIn({ l1TableOffset, l1Size, size }: HeaderV2): StagedPlace {
  return { l1Offset: l1TableOffset, l1Size, virtualSize: size };
}

/** Reads a token. @throws ImageError `IMAGE_UNSUPPORTED` when it cannot be of a staging of this image. */
export function placeOf(state: Qcow2State, token: StagingToken): StagedPlace {
  const { l1Offset = 0, l1Size = 0, virtualSize = -1 } = token;
  const place = { l1Offset, l1Size, virtualSize };
  const { clusterSize, l2Reach } = state.geometry;
  const end = l1Offset + l1Size * ENTRY_BYTES;
  const fits =
    Object.values(place).every(Number.isSafeInteger) &&
    l1Offset > 0 &&
    l1Offset % clusterSize === 0 &&
    l1Size > 0 &&
    l1Size * ENTRY_BYTES <= HARD_LIMITS.l1Table &&
    end <= alignUp(state.fileEnd, clusterSize) &&
    virtualSize >= 0 &&
    l1Size >= virtualSize / l2Reach;
  const holdsImage = virtualSize >= state.header.size && l1Size >= state.header.l1Size;
  // an image may grow after the publish
  if (fits && (holdsImage || isPublished(state, place))) return place;
  throw noStaging(state, 'the token is not of a staging of this image');
}

/** Whether the staging at `place` is the image's own mapping by now. */
export function isPublished(state: Qcow2State, place: StagedPlace): boolean {
  return state.header.l1TableOffset === place.l1Offset;
}

/** Whether the staging at `place` was given up: the first thing that goes is the refcount of its L1 table. */
export async function isGone(state: Qcow2State, place: StagedPlace): Promise<boolean> {
  const { clusterSize } = state.geometry;
  const end = place.l1Offset + place.l1Size * ENTRY_BYTES;
  const { refcounts } = writerOf(state);
  for (let at = place.l1Offset; at < end; at += clusterSize)
    if ((await refcountOf(state, refcounts, at / clusterSize)) === 0) return true;
  return false;
}

/** Why there is no staging. */
export function noStaging(state: Qcow2State, problem: string): Error {
  return imageError(
    'IMAGE_UNSUPPORTED',
    state.label,
    `cannot be staged on: ${problem}`,
    undefined,
    {
      feature: 'staging',
    },
  );
}
