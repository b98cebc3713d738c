import { imageError } from './corrupt.ts';
import type { Header } from './header.ts';
import { MetadataCache } from './metadata-cache.ts';
import { registerMetadata } from './overlap.ts';
import { disown, sameHost } from './stage-entries.ts';
import type { StagedPlace } from './stage-place.ts';
import type { Qcow2State } from './state.ts';
import { ENTRY_BYTES, entryOffset } from './structures.ts';

/**
 * Makes `l1`, the L1 table at `place`, a second mapping of the image, protected as the image's own is. From here on until the staging
 * is closed the image's mapping does not change.
 */
export function openStaged(image: Qcow2State, place: StagedPlace, l1: Uint32Array): Qcow2State {
  const { clusterSize } = image.geometry;
  const l1End = place.l1Offset + place.l1Size * ENTRY_BYTES;
  for (let at = place.l1Offset; at < l1End; at += clusterSize)
    registerMetadata(image, at, 'L1 table');
  for (let at = 0; at < l1.length; at += 2) {
    const offset = entryOffset(l1[at] as number, l1[at + 1] as number);
    if (offset > 0 && !sameHost(l1, image.l1, at)) registerMetadata(image, offset, 'L2 table');
  }
  disown(l1, image.l1, 2);
  image.staged = stateOver(image, place, l1);
  return image.staged;
}

/** Ends a staging in memory: of what it changed since the last flush nothing is written any more. */
export function closeStaged(staged: Qcow2State): void {
  staged.closed = true;
  imageOf(staged).staged = null;
  staged.writer?.l1Changed.clear();
}

/** The image that a staging is of. */
export function imageOf(staged: Qcow2State): Qcow2State {
  return staged.stagedOn as Qcow2State;
}

/** @throws ImageError `IMAGE_CLOSED` after a staging was published or discarded, and when its image was closed. */
export function assertStagedOpen(staged: Qcow2State): void {
  if (staged.closed) throw imageError('IMAGE_CLOSED', staged.label, 'is closed, or the staging is');
}

/** @throws ImageError `IMAGE_UNSUPPORTED` while there is a staging. */
export function assertNotStaged(image: Qcow2State): void {
  if (image.staged === null) return;
  const feature = 'a change while there is a staging';
  throw imageError(
    'IMAGE_UNSUPPORTED',
    image.label,
    'cannot be changed while there is a staging; publish or discard it first',
    undefined,
    { feature },
  );
}

/** What belongs to the mapping is the new state's own; what belongs to the file is read from the image at every use: it changes. */
function stateOver(image: Qcow2State, place: StagedPlace, l1: Uint32Array): Qcow2State {
  let closed = false;
  let [seen, header] = [image.header, withPlace(image.header, place)];
  return {
    storage: image.storage,
    data: image.data,
    external: image.external,
    luks: image.luks,
    label: image.label,
    limits: image.limits,
    mending: false,
    mendedFrom: null,
    geometry: image.geometry,
    writer: image.writer,
    l1,
    l2: new MetadataCache(image.geometry.clusterSize),
    lastCompressed: null,
    compressedAnew: 0,
    staged: null,
    ownsFile: false,
    stagedOn: image,
    get header() {
      if (seen !== image.header) [seen, header] = [image.header, withPlace(image.header, place)];
      return header;
    },
    set header(written) {
      image.header = written;
    },
    get headerCluster() {
      return image.headerCluster;
    },
    set headerCluster(bytes) {
      image.headerCluster = bytes;
    },
    get fileEnd() {
      return image.fileEnd;
    },
    set fileEnd(end) {
      image.fileEnd = end;
    },
    get closed() {
      return closed || image.closed;
    },
    set closed(ended) {
      closed = ended;
    },
  };
}

function withPlace(header: Header, place: StagedPlace): Header {
  const { virtualSize: size, l1Size, l1Offset: l1TableOffset } = place;
  return { ...header, size, l1Size, l1TableOffset };
}
