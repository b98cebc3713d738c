import { type ChainLayer, factsOf, viewOf } from '@downfold/chain';
import { qcow2 } from '@downfold/qcow2';
import { fileBackend } from '@downfold/storage-file';
import { byteLength, guestOffset } from '@downfold/units';
import type { Draw } from '../tools/draw.ts';
import { BLOCK, type Book } from './book.ts';

/** From the bottom; the last one is the active layer. */
const NAMES = ['base', 'low', 'mid', 'top', 'disk'] as const;
const CLUSTERS = [4096, 65_536, 65_536, 262_144] as const;

/** Makes a chain in a directory and writes what its layers hold into the book, durably. Resolves with the path of the active layer. */
export async function makeStampedChain(directory: string, book: Book, from: Draw): Promise<string> {
  const backend = fileBackend();
  const layers: ChainLayer[] = [];
  for (const [index, name] of NAMES.entries()) {
    const path = `${directory}/${name}.qcow2`;
    const below = NAMES[index - 1];
    const image = await qcow2.create(await backend.create(path, { secret: false }), {
      virtualSize: byteLength(book.size),
      clusterSize: from.pick(CLUSTERS),
      extendedL2: false,
      ...(below === undefined ? {} : { backing: { name: `${below}.qcow2`, format: 'qcow2' } }),
    });
    const fill = index === 0 ? null : viewOf(layers, index - 1);
    for (let block = 0; block < book.count; block++) {
      if (!from.chance(index === 0 ? 0.7 : 0.15)) continue;
      const offset = guestOffset(block * BLOCK);
      if (from.chance(0.1)) {
        const { sequence } = book.zero(block);
        await image.writeZeroes({ offset, length: byteLength(BLOCK) }, { fill });
        book.answered(block, sequence, { durable: true });
        continue;
      }
      const { sequence, bytes } = book.write(block);
      await image.write(offset, bytes, { fill });
      book.answered(block, sequence, { durable: true });
    }
    await image.flush();
    layers.push({ facts: await factsOf(name, path, image, backend), image });
  }
  for (const { image } of layers) await image[Symbol.asyncDispose]();
  return `${directory}/${NAMES.at(-1)}.qcow2`;
}
