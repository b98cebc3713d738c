import { planBacking, switchBacking } from './backing.ts';
import { BARRIER } from './barriers.ts';
import { corrupt, imageError } from './corrupt.ts';
import { encodeExtension, findExtension } from './extensions.ts';
import { writeHeader } from './header-sector.ts';
import type { Qcow2State } from './state.ts';
import { EXTENSION, EXTENSION_ALIGNMENT, extensionHead } from './structures.ts';

/** Changes of the extension area, each by one write within one sector (rule W11). All are to be called in the header's turn. */

/**
 * Adds an extension: its data and a new end marker are made durable behind the present end marker; then the 8 bytes of that become the
 * extension's head. @throws ImageError `IMAGE_NO_ROOM` before anything is written.
 */
export async function appendExtension(
  state: Qcow2State,
  type: number,
  data: Uint8Array,
): Promise<void> {
  const extension = encodeExtension(type, data);
  await makeRoom(state, extension.length);
  const at = state.header.area.endAt;
  const body = new Uint8Array(extension.length);
  body.set(extension.subarray(extensionHead.size));
  await writeHeader(state, at + extensionHead.size, body, BARRIER.extensionBody);
  await writeHeader(state, at, extension.subarray(0, extensionHead.size), BARRIER.extensionHead);
}

/** Replaces the data of an extension by as much; where that crosses a sector nothing may rely on it meanwhile. */
export async function replaceExtension(
  state: Qcow2State,
  type: number,
  data: Uint8Array,
): Promise<void> {
  await writeHeader(state, extensionDataAt(state, type), data, BARRIER.extensionHead);
}

/** Byte of an extension's data in the file. @throws ImageError `IMAGE_CORRUPT` when there is none */
export function extensionDataAt({ header, label }: Qcow2State, type: number): number {
  const found = findExtension(header.area, type);
  if (found === undefined)
    throw corrupt(label, `the header has lost its extension 0x${type.toString(16)}`);
  return found.at + extensionHead.size;
}

/** Takes an extension away: the area ends there, or there is unused room between others. */
export async function removeExtension(state: Qcow2State, type: number): Promise<void> {
  const { area } = state.header;
  const extension = findExtension(area, type);
  if (extension === undefined) return;
  const head = new Uint8Array(extensionHead.size);
  if (extension !== area.extensions.at(-1))
    extensionHead.encode({ type: EXTENSION.unused, length: extension.data.length }, head);
  await writeHeader(state, extension.at, head, BARRIER.extensionHead);
}

/**
 * Makes room for an extension of so many bytes, head and padding included, behind the others: moves a backing name that lies there out of the
 * way, which may move the end of the extensions, or refuses before anything is written. @throws ImageError `IMAGE_NO_ROOM`
 */
export async function makeRoom(state: Qcow2State, bytes: number): Promise<void> {
  const { area, backing } = state.header;
  const end = area.endAt + bytes + extensionHead.size;
  const noRoom = (): Error =>
    imageError('IMAGE_NO_ROOM', state.label, 'the header has no place for another extension');
  const marker = area.endAt + extensionHead.size <= area.limit;
  if (!marker || area.endAt % EXTENSION_ALIGNMENT !== 0) throw noRoom();
  if (end <= area.limit) return;
  const plan = planBacking(state, backing);
  if (end > (plan.nameAt || state.geometry.clusterSize)) throw noRoom();
  await switchBacking(state, plan);
}
