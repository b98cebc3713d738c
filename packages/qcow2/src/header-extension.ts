import { planBacking, switchBacking } from './backing.ts';
import { BARRIER } from './barriers.ts';
import { imageError } from './corrupt.ts';
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
  const at = state.header.area.endAt;
  await makeRoom(state, at + extension.length + extensionHead.size);
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
  const at = (findExtension(state.header.area, type)?.at ?? 0) + extensionHead.size;
  await writeHeader(state, at, data, BARRIER.extensionHead);
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
 * Moves a backing name that lies before `end` out of the way, or refuses before anything is written.
 * @throws ImageError `IMAGE_NO_ROOM`
 */
async function makeRoom(state: Qcow2State, end: number): Promise<void> {
  const { area, backing } = state.header;
  const noRoom = (): Error =>
    imageError('IMAGE_NO_ROOM', state.label, 'the header has no place for another extension');
  const marker = area.endAt + extensionHead.size <= area.limit;
  if (!marker || area.endAt % EXTENSION_ALIGNMENT !== 0) throw noRoom();
  if (end <= area.limit) return;
  const plan = planBacking(state, backing);
  if (end > (plan.nameAt || state.geometry.clusterSize)) throw noRoom();
  await switchBacking(state, plan);
}
