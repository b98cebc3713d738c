import type { ChainLayer, LayerFacts } from '@downfold/chain';
import { seededRandom } from '@downfold/compliance';
import type { StorageBackend } from '@downfold/storage';
import { MemoryDisk, memoryBackend } from '@downfold/storage-memory';
import { byteLength, type GuestRange, guestOffset } from '@downfold/units';
import { expect } from 'vitest';
import { Device, type DeviceOptions } from '../src/index.ts';
import { CELL, ToyImage, type ToyOptions } from './toy-image.ts';

/** A layer whose image is a toy. */
export interface ToyLayer extends ChainLayer {
  readonly image: ToyImage;
}

let made = 0;

/** A new layer; on a disk of its own unless `backend` says where. */
export async function toyLayer(
  options: ToyOptions,
  backend: StorageBackend = memoryBackend(new MemoryDisk()),
): Promise<ToyLayer> {
  const node = `l${made++}`;
  const storage = await backend.create(`/${node}`, { secret: false });
  return { facts: { node, path: `/${node}` } as LayerFacts, image: new ToyImage(storage, options) };
}

/** Makes whole cells of a layer data of one byte. */
export async function put(
  layer: ToyLayer,
  byte: number,
  ...cells: readonly number[]
): Promise<void> {
  for (const cell of cells) {
    const length = Math.min(CELL, layer.image.geometry.virtualSize - cell * CELL);
    const source = new Uint8Array(length).fill(byte);
    await layer.image.write(guestOffset(cell * CELL), source, { fill: null });
  }
}

/** A disk on these layers. */
export function deviceOn(
  layers: readonly ChainLayer[],
  other: Partial<DeviceOptions> = {},
): Device {
  return new Device({ layers, ...other });
}

export function range(offset: number, length: number): GuestRange {
  return { offset: guestOffset(offset), length: byteLength(length) };
}

/** What the disk shows. */
export async function shown(device: Device, offset: number, length: number): Promise<Uint8Array> {
  const target = new Uint8Array(length).fill(0xee);
  await device.read(guestOffset(offset), target);
  return target;
}

/** The bytes at the start of each cell. */
export async function cellsOf(device: Device): Promise<readonly number[]> {
  const bytes = await shown(device, 0, device.size);
  return [...bytes].filter((_, at) => at % CELL === 0);
}

/** Bytes of one value. */
export function bytes(length: number, value: number): Uint8Array {
  return new Uint8Array(length).fill(value);
}

/** Time passes, differently at each call: some microtasks, or a turn of the event loop. */
export function jitter(seed: number): () => Promise<void> {
  const random = seededRandom(seed);
  return async () => {
    const draw = random();
    if (draw < 0.15) await new Promise((resolve) => setImmediate(resolve));
    else for (let left = Math.floor(draw * 4); left > 0; left--) await Promise.resolve();
  };
}

/** Everything that can happen without new calls has happened. */
export async function settled(): Promise<void> {
  for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
}

/** What has settled of `promise` by now. */
export function watched(promise: Promise<unknown>): { state: 'waits' | 'done' | string } {
  const watch = { state: 'waits' };
  promise.then(
    () => {
      watch.state = 'done';
    },
    (cause: unknown) => {
      watch.state = (cause as { code?: string }).code ?? String(cause);
    },
  );
  return watch;
}

/** Stops what a toy does, by name, until it is let go. */
export class Gate {
  readonly #waiting: PromiseWithResolvers<void>[] = [];
  readonly #stops: (what: string, offset: number) => boolean;
  #isOpen = false;

  constructor(stops: (what: string, offset: number) => boolean) {
    this.#stops = stops;
  }

  /** For `ToyOptions.pause`. */
  readonly pause = async (what: string, offset: number): Promise<void> => {
    if (this.#isOpen || !this.#stops(what, offset)) return;
    const stop = Promise.withResolvers<void>();
    this.#waiting.push(stop);
    await stop.promise;
  };

  get waiting(): number {
    return this.#waiting.length;
  }

  open(): void {
    this.#isOpen = true;
    for (const stop of this.#waiting.splice(0)) stop.resolve();
  }
}

/** Expects a rejection with this code. */
export async function expectCode(work: Promise<unknown>, code: string): Promise<void> {
  await expect(work).rejects.toMatchObject({ code });
}

/** All that an iterable has. */
export async function collected<T>(source: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const one of source) all.push(one);
  return all;
}
