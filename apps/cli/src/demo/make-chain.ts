import { posix } from 'node:path';
import { type ChainEnvironment, openChain, viewOf } from '@downfold/chain';
import { qcow2 } from '@downfold/qcow2';
import { byteLength, guestOffset } from '@downfold/units';
import { backend } from '../environment.ts';

const MIB = 1 << 20;
/** Bytes of the demo's virtual disk. */
const DISK_BYTES = byteLength(256 * MIB);

/** What each layer of the demo holds, bottom first: bytes `from` to `to`, in MiB. */
const LAYERS = [
  { name: 'base.qcow2', written: [{ from: 0, to: 128 }] },
  { name: 'mid.qcow2', written: [{ from: 64, to: 160 }] },
  {
    name: 'top.qcow2',
    written: [
      { from: 96, to: 112 },
      { from: 192, to: 224 },
    ],
  },
  { name: 'active.qcow2', written: [{ from: 32, to: 40 }] },
] as const;

/** Names of the demo's images, bottom first. */
export const DEMO_IMAGES: readonly string[] = LAYERS.map(({ name }) => name);

/** Creates the images in `directory`, each on top of the one before, and writes to each what a guest might have. */
export async function makeChain(directory: string, environment: ChainEnvironment): Promise<void> {
  for (const [index, { name, written }] of LAYERS.entries()) {
    const below = LAYERS[index - 1]?.name;
    const path = posix.join(directory, name);
    const backing = below === undefined ? null : { name: below, format: qcow2.name };
    const storage = await backend.create(path, { secret: false });
    const created = await qcow2.create(storage, { virtualSize: DISK_BYTES, backing });
    await created[Symbol.asyncDispose]();
    await backend.flushDirectory(directory, 'demo: name of the new image');
    await using image = await qcow2.open(await backend.open(path, 'write'), { mode: 'write' });
    await using chain = await openChain(path, qcow2.name, environment);
    const fill = index === 0 ? null : viewOf(chain.layers, index - 1);
    for (const { from, to } of written)
      for (let at = from; at < to; at++)
        await image.write(guestOffset(at * MIB), contentOf(index, at), { fill });
    await image.flush();
  }
}

/** A MiB that is like no other of the demo. */
function contentOf(layer: number, at: number): Uint8Array {
  const words = new Uint32Array(MIB / 4);
  let state = (layer << 16) + at + 1;
  for (let index = 0; index < words.length; index++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    words[index] = state;
  }
  return new Uint8Array(words.buffer);
}
