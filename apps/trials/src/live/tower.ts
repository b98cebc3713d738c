import { type ChainLayer, factsOf, viewOf } from '@downfold/chain';
import type { CaseContext } from '@downfold/compliance';
import { qcow2 } from '@downfold/qcow2';
import type { StorageBackend } from '@downfold/storage';
import { byteLength, guestOffset } from '@downfold/units';
import { SECTOR } from '../device/stamp.ts';

/** One layer of a tower: its cluster size in bytes, and sectors that it holds. */
export interface Storey {
  readonly name: string;
  readonly clusterSize: number;
  /** First sector, and how many. */
  readonly holds: readonly (readonly [number, number])[];
}

/** Makes a chain of as many images as there are storeys, bottom first. What a layer holds of a sector is like nothing else. */
export async function makeTower(
  backend: StorageBackend,
  size: number,
  storeys: readonly Storey[],
): Promise<void> {
  const layers: ChainLayer[] = [];
  for (const [index, { name, clusterSize, holds }] of storeys.entries()) {
    const path = `/${name}.qcow2`;
    const below = storeys[index - 1];
    const image = await qcow2.create(await backend.create(path, { secret: false }), {
      virtualSize: byteLength(size),
      clusterSize,
      ...(below === undefined ? {} : { backing: { name: `${below.name}.qcow2`, format: 'qcow2' } }),
    });
    const fill = index === 0 ? null : viewOf(layers, index - 1);
    for (const [first, count] of holds)
      for (let at = first; at < first + count; at++) {
        const bytes = Buffer.alloc(SECTOR, `${name}, sector ${at}; `);
        await image.write(guestOffset(at * SECTOR), bytes, { fill });
      }
    await image.flush();
    layers.push({ facts: await factsOf(name, path, image, backend), image });
  }
  for (const { image } of layers) await image[Symbol.asyncDispose]();
  await backend.flushDirectory('/', 'trial: names');
}

const CLUSTERS = [512, 4096, 16_384] as const;

/** Random storeys: layers of several cluster sizes, so that what is copied cuts clusters and the rest comes from below. */
export function randomStoreys(
  names: readonly string[],
  size: number,
  draw: CaseContext,
): readonly Storey[] {
  const sectors = size / SECTOR;
  return names.map((name) => ({
    name,
    clusterSize: CLUSTERS[draw.integer(CLUSTERS.length)] as number,
    holds: Array.from({ length: 2 + draw.integer(5) }, () => {
      const first = draw.integer(sectors);
      return [first, Math.min(1 + draw.integer(20), sectors - first)] as const;
    }),
  }));
}
