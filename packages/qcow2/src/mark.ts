import type { ImageMark } from '@downfold/image';
import { BARRIER } from './barriers.ts';
import { imageError } from './corrupt.ts';
import { encodeExtension, findExtension } from './extensions.ts';
import { appendExtension, makeRoom } from './header-extension.ts';
import { writeHeader } from './header-sector.ts';
import { encodeMark, MARK_BYTES } from './mark-text.ts';
import type { Qcow2State } from './state.ts';
import { EXTENSION, extensionHead, SECTOR_BYTES } from './structures.ts';
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
  await writeHeader(
    state,
    at + extensionHead.size + length - MARK_BYTES,
    text,
    BARRIER.extensionHead,
  );
}

async function addMark(state: Qcow2State, text: Uint8Array): Promise<void> {
  await makeRoom(state, encodeExtension(EXTENSION.mark, new Uint8Array(markLength(state))).length);
  // the extensions may end elsewhere since
  const data = new Uint8Array(markLength(state));
  data.set(text, data.length - MARK_BYTES);
  await appendExtension(state, EXTENSION.mark, data);
}

/** Bytes of a mark's extension behind the present ones: its text lies in one sector. */
function markLength({ header }: Qcow2State): number {
  const dataAt = header.area.endAt + extensionHead.size;
  const left = SECTOR_BYTES - (dataAt % SECTOR_BYTES);
  return left < MARK_BYTES ? left + MARK_BYTES : MARK_BYTES;
}
