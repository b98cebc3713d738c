import { caseContext } from '@downfold/compliance';
import type { MemoryDisk } from '@downfold/storage-memory';
import { ENTRY_BYTES } from '../src/structures.ts';
import type { Craft } from './craft.ts';
import { prepared, put } from './scenarios.ts';

const SECTOR = 512;

/** A random sound image with everything that a check looks at. `largest`: its clusters have up to 2 to this many bytes. */
export async function sound(seed: number, largest = 13): Promise<MemoryDisk> {
  const { integer, random } = caseContext(seed);
  const version = random() < 0.2 ? 2 : 3;
  const extendedL2 = version === 3 && random() < 0.3;
  const clusterSize = extendedL2 ? 16_384 : SECTOR * 2 ** integer(largest - 8);
  const sectors = 64 + integer(200) + (clusterSize > 16_384 ? (6 * clusterSize) / SECTOR : 0);
  return prepared(
    {
      version,
      extendedL2,
      clusterSize,
      virtualSize: sectors * SECTOR,
      // no more clusters than one block counts, so that some can be added
      refcountBits: version === 2 ? 16 : 2 ** integer(clusterSize > 1024 ? 7 : 4),
    },
    async (image) => {
      for (let part = 0; part < 3; part++)
        await put(image, SECTOR * integer(sectors / 2), SECTOR * integer(sectors / 2));
    },
    (craft) => {
      const some = (): number[] => craft.mapped().filter(() => random() < 0.3);
      if (random() < 0.3 && version === 3 && !extendedL2) craft.preallocateZero(some());
      else if (random() < 0.5) craft.compress(some());
      if (craft.geometry.refcountBits > 1 && random() < 0.4) craft.snapshot();
      if (version === 3 && random() < 0.2) craft.bitmap();
    },
  );
}

/** Places of metadata, bytes: the table that a damage hits is chosen first, so that small ones are hit as often as large ones. */
export function places(
  craft: Craft,
): Readonly<Record<string, readonly (readonly [at: number, length: number])[]>> {
  const { clusterSize, l2Entries } = craft.geometry;
  const { header } = craft;
  const table = header.refcountTableOffset;
  const blocks = Array.from({ length: clusterSize / ENTRY_BYTES }, (_, index) =>
    craft.word(table + ENTRY_BYTES * index + 4),
  ).filter((at) => at !== 0);
  const guest = new Set(craft.mapped().map((cluster) => Math.floor(cluster / l2Entries)));
  const l2 = [...guest].map((index) => {
    const entry = craft.entryAt(index * l2Entries);
    return [entry, clusterSize] as const;
  });
  return {
    header: [[32, 72]],
    'L1 table': [[header.l1TableOffset, header.l1Size * ENTRY_BYTES]],
    'L2 table': l2,
    'L2 entries in use': craft
      .mapped()
      .map((cluster) => [craft.entryAt(cluster), craft.geometry.entryWords * 4] as const),
    'refcount table': [[table, 16]],
    'refcount block': blocks.map((at) => [at, 64] as const),
    ...(header.nbSnapshots > 0
      ? { 'snapshot table': [[header.snapshotsOffset, 80]] as const }
      : {}),
  };
}
