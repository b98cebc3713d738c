import { hostOffset } from '@downfold/units';
import { allocateAll, releaseOnFailure } from './allocate.ts';
import { assertNoOverlap, protect } from './overlap.ts';
import type { MetadataKind, Qcow2State } from './state.ts';
import { writerOf } from './writer.ts';

/**
 * Writes metadata to fresh clusters in one piece, protected from then on; resolves with its byte in the file. The next flush makes it durable
 * with their refcounts (W1), before anything may point there (W11). When it fails the clusters are let go.
 */
export async function writeFresh(
  state: Qcow2State,
  kind: MetadataKind,
  bytes: Uint8Array,
): Promise<number> {
  const writer = writerOf(state);
  const place = await allocateAll(state, Math.ceil(bytes.length / state.geometry.clusterSize));
  return releaseOnFailure(state, place, async () => {
    await assertNoOverlap(state, place.offset, bytes.length, null);
    await state.storage.write(hostOffset(place.offset), bytes, { what: kind });
    protect(writer.metadata, state, kind, place.offset, bytes.length);
    // a flush that somebody else began may have sealed the refcounts without it: the next one has something to make durable
    writer.dataDirty = true;
    return place.offset;
  });
}
