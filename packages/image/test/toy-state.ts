import type { Storage } from '@downfold/storage';
import { alignUp, hostOffset } from '@downfold/units';
import type { BackingReference, ImageMark } from '../src/index.ts';

/** Bytes. */
export const CLUSTER = 1024;
const SECTOR = 512;
const MAGIC = '{"toy":1,';

/** Everything of a toy image but its data; `clusters` holds byte offsets in the file, or `zero`. */
export interface ToyState {
  readonly size: number;
  readonly backing: BackingReference | null;
  readonly mark: ImageMark | null;
  readonly clusters: readonly (readonly [index: number, place: number | 'zero'])[];
}

/** Where the state lies in the file: a sector says it, in JSON; the first one for the image, another one for a staging. */
export interface ToyHead {
  readonly toy: 1;
  readonly at: number;
  readonly bytes: number;
}

/** What a toy image is opened as. */
export interface ToyParts {
  readonly storage: Storage;
  readonly state: ToyState;
  readonly writable: boolean;
  /** First free byte of the file; an image and its staging have one in common. */
  readonly space: { end: number };
  /** Where the head lies. */
  readonly headAt: number;
  /** Clusters of the file that others have too, and that are therefore not written in place. */
  readonly shared: ReadonlySet<number>;
}

/** A head as a sector. */
export function encodeHead(head: ToyHead): Uint8Array {
  const sector = new Uint8Array(SECTOR).fill(0x20);
  sector.set(new TextEncoder().encode(JSON.stringify(head)));
  return sector;
}

/** Whether bytes begin with a head. */
export function isHead(bytes: Uint8Array): boolean {
  return text(bytes.subarray(0, MAGIC.length)) === MAGIC;
}

/** The head at `headAt` and the state that it points to; null when there is none. */
export async function readState(
  storage: Storage,
  headAt: number,
): Promise<{ readonly head: ToyHead; readonly state: ToyState } | null> {
  const sector = new Uint8Array(SECTOR);
  await storage.read(hostOffset(headAt), sector);
  if (!isHead(sector)) return null;
  const head = JSON.parse(text(sector)) as ToyHead;
  const bytes = new Uint8Array(head.bytes);
  await storage.read(hostOffset(head.at), bytes);
  return { head, state: JSON.parse(text(bytes)) as ToyState };
}

/** Takes bytes at the end of a file, aligned to a cluster. */
export function takeSpace(space: { end: number }, length: number): number {
  const at = alignUp(space.end, CLUSTER);
  space.end = at + length;
  return at;
}

function text(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes);
}
