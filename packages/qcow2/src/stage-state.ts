import { imageError } from './corrupt.ts';
import type { Header } from './header.ts';
import { MetadataCache } from './metadata-cache.ts';
import type { StagedPlace } from './stage-place.ts';
import type { Qcow2State } from './state.ts';

/**
 * A second mapping over the file of `image`: L1 table, L2 tables and virtual size are its own, all else is the image's, read
 * there at every use because it changes. `l1`: two words an entry, copied flags as `disown` leaves them.
 */
export function stagedState(image: Qcow2State, place: StagedPlace, l1: Uint32Array): Qcow2State {
  let ended = false;
  let seen: Header | null = null;
  let header = image.header;
  return {
    storage: image.storage,
    label: image.label,
    limits: image.limits,
    geometry: image.geometry,
    writer: image.writer,
    l1,
    l2: new MetadataCache(image.geometry.clusterSize),
    lastCompressed: null,
    staged: null,
    stagedOn: image,
    get header(): Header {
      if (seen !== image.header) {
        seen = image.header;
        const { virtualSize: size, l1Size, l1Offset: l1TableOffset } = place;
        header = { ...seen, size, l1Size, l1TableOffset };
      }
      return header;
    },
    /** The file's: what is written there is never the staging's own. */
    set header(written: Header) {
      image.header = written;
    },
    get headerCluster(): Uint8Array {
      return image.headerCluster;
    },
    set headerCluster(bytes: Uint8Array) {
      image.headerCluster = bytes;
    },
    get fileEnd(): number {
      return image.fileEnd;
    },
    set fileEnd(end: number) {
      image.fileEnd = end;
    },
    get closed(): boolean {
      return ended || image.closed;
    },
    set closed(closed: boolean) {
      ended = closed;
    },
  };
}

/** @throws ImageError `IMAGE_UNSUPPORTED` while there is a staging: what it inherited must not change. */
export function assertNotStaged(state: Qcow2State): void {
  if (state.staged === null) return;
  const feature = 'changes while there is a staging; publish or discard it first';
  throw imageError('IMAGE_UNSUPPORTED', state.label, feature, undefined, { feature });
}
