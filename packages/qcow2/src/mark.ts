import type { ImageMark } from '@downfold/image';
import { planBacking, switchBacking } from './backing.ts';
import { BARRIER } from './barriers.ts';
import { imageError } from './corrupt.ts';
import { encodeExtension, findExtension } from './extensions.ts';
import { writeHeader } from './header-sector.ts';
import { encodeMark, MARK_BYTES } from './mark-text.ts';
import type { Qcow2State } from './state.ts';
import { EXTENSION, EXTENSION_ALIGNMENT, extensionHead, SECTOR_BYTES } from './structures.ts';
import { inTurn } from './writer.ts';

/**
 * Writes a mark as a private header extension, or takes it away, by one write within one sector (rule W11). A first mark: the
 * extension's data and a new end marker are made durable behind the present end marker; then the 8 bytes of the end marker
 * become the extension's head. Later ones replace the text.
 */
export async function setImageMark(state: Qcow2State, mark: ImageMark | null): Promise<void> {
  const text = encodeMark(mark);
  if (text === null)
    throw imageError('IMAGE_NO_ROOM', state.label, `mark is longer than ${MARK_BYTES} bytes`);
  await inTurn(state, 'header', async () => {
    const old = findExtension(state.header.area, EXTENSION.mark);
    if (old !== undefined) await replaceText(state, old.at, old.data.length, text);
    else if (mark !== null) await addMark(state, text);
  });
}

async function replaceText(
  state: Qcow2State,
  at: number,
  length: number,
  text: Uint8Array,
): Promise<void> {
  if (length < MARK_BYTES)
    throw imageError('IMAGE_NO_ROOM', state.label, 'has a mark that another program wrote', at);
  await writeHeader(state, at + extensionHead.size + length - MARK_BYTES, text, BARRIER.markHead);
}

async function addMark(state: Qcow2State, text: Uint8Array): Promise<void> {
  const at = state.header.area.endAt;
  const dataAt = at + extensionHead.size;
  const left = SECTOR_BYTES - (dataAt % SECTOR_BYTES);
  const data = new Uint8Array(left < MARK_BYTES ? left + MARK_BYTES : MARK_BYTES);
  data.set(text, data.length - MARK_BYTES);
  const extension = encodeExtension(EXTENSION.mark, data);
  await makeRoom(state, at + extension.length + extensionHead.size);
  const body = new Uint8Array(extension.length);
  body.set(extension.subarray(extensionHead.size));
  await writeHeader(state, dataAt, body, BARRIER.markBody);
  await writeHeader(state, at, extension.subarray(0, extensionHead.size), BARRIER.markHead);
}

/** Moves a backing name that lies before `end` out of the way, or refuses before anything is written. */
async function makeRoom(state: Qcow2State, end: number): Promise<void> {
  const { area, backing } = state.header;
  const noRoom = (): Error =>
    imageError('IMAGE_NO_ROOM', state.label, 'the header has no place for a mark');
  const marker = area.endAt + extensionHead.size <= area.limit;
  if (!marker || area.endAt % EXTENSION_ALIGNMENT !== 0) throw noRoom();
  if (end <= area.limit) return;
  const plan = planBacking(state, backing);
  if (end > (plan.nameAt || state.geometry.clusterSize)) throw noRoom();
  await switchBacking(state, plan);
}
