import { caseContext } from '@downfold/compliance';
import type { MemoryDisk } from '@downfold/storage-memory';
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
