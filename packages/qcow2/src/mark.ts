import type { ImageMark } from '@downfold/image';
import { alignUp, hostOffset } from '@downfold/units';
import { setBackingReference } from './backing.ts';
import { BARRIER } from './barriers.ts';
import { imageError } from './corrupt.ts';
import { encodeExtension, findExtension } from './extensions.ts';
import { adoptHeader } from './header-sector.ts';
import { encodeMark } from './mark-text.ts';
import { assertNoOverlap } from './overlap.ts';
import type { Qcow2State } from './state.ts';
import { EXTENSION, EXTENSION_ALIGNMENT, extensionHead } from './structures.ts';

/** Bytes of a mark's data: fixed, so that a mark can be replaced in place. Holds a state, a UUID and a date. */
const MARK_BYTES = 88;

/**
 * Writes a mark as a private header extension, or takes it away. The extension's data and a new end marker are made durable
 * behind the present end marker; then the 8 bytes of the end marker, which lie in one sector, become the extension's head.
 */
export async function setImageMark(state: Qcow2State, mark: ImageMark | null): Promise<void> {
  const data = new Uint8Array(MARK_BYTES);
  const text = mark === null ? new TextEncoder().encode('none') : encodeMark(mark);
  if (text.length > MARK_BYTES)
    throw imageError(
      'IMAGE_NO_ROOM',
      state.label,
      `mark of ${text.length} bytes is longer than ${MARK_BYTES}`,
    );
  data.set(text);
  const old = findExtension(state.header.area, EXTENSION.mark);
  if (old !== undefined && old.data.length === MARK_BYTES)
    return writeHeaderPart(state, old.at + extensionHead.size, data, BARRIER.markHead);
  if (mark === null) return;
  await makeRoom(state);
  const extension = encodeExtension(EXTENSION.mark, data);
  const at = state.header.area.endAt;
  const body = new Uint8Array(extension.length);
  body.set(extension.subarray(extensionHead.size));
  await writeHeaderPart(state, at + extensionHead.size, body, BARRIER.markBody);
  await writeHeaderPart(state, at, extension.subarray(0, extensionHead.size), BARRIER.markHead);
}

/** Moves a backing name out of the way, or refuses before anything is written. */
async function makeRoom(state: Qcow2State): Promise<void> {
  const { header } = state;
  const end =
    header.area.endAt +
    extensionHead.size +
    alignUp(MARK_BYTES, EXTENSION_ALIGNMENT) +
    extensionHead.size;
  const limit = (): number => state.header.backingFileOffset || state.geometry.clusterSize;
  const room = header.area.endAt + extensionHead.size <= header.area.limit;
  if (room && end > limit() && end <= state.geometry.clusterSize && header.backing !== null)
    await setBackingReference(state, header.backing);
  if (!room || end > limit())
    throw imageError('IMAGE_NO_ROOM', state.label, 'the header has no place for a mark');
}

async function writeHeaderPart(
  state: Qcow2State,
  at: number,
  bytes: Uint8Array,
  barrier: string,
): Promise<void> {
  await assertNoOverlap(state, at, bytes.length, 'header');
  await state.storage.write(hostOffset(at), bytes, { what: 'header extension' });
  await state.storage.flush(barrier);
  adoptHeader(state, bytes, at);
}
