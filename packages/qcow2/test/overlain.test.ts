import { MemoryDisk, memoryBackend } from '@downfold/storage-memory';
import { byteLength, guestOffset } from '@downfold/units';
import { describe, expect, test } from 'vitest';
import { qcow2 } from '../src/index.ts';
import { entryOffset, HIGH_COPIED } from '../src/structures.ts';
import { Craft } from './craft.ts';
import { IMAGE } from './crash-lab.ts';
import { openOn, readAll } from './support.ts';

const CLUSTER = 512;
/** Guest clusters that an L2 table maps. */
const REACH = 64;

/** An image of two L2 tables with a snapshot, whose second table lies over the snapshot's L1 table; `shown` is what its entries from 5 on lead to. */
async function overlain(
  shown: (craft: Craft) => readonly number[],
): Promise<{ readonly disk: MemoryDisk; readonly craft: Craft }> {
  const disk = new MemoryDisk();
  const storage = await memoryBackend(disk).create(IMAGE, { secret: false });
  {
    const virtualSize = byteLength(2 * REACH * CLUSTER);
    await using image = await qcow2.create(storage, { clusterSize: CLUSTER, virtualSize });
    await image.write(guestOffset(0), new Uint8Array(10 * CLUSTER).fill(7), { fill: null });
    await image.flush();
  }
  const craft = new Craft(disk, IMAGE);
  craft.snapshot();
  const table = craft.word(craft.header.snapshotsOffset + 4);
  craft.setOffset(craft.header.l1TableOffset + 8, table);
  for (const [index, host] of shown(craft).entries())
    craft.setOffset(table + 8 * (5 + index), host);
  return { disk, craft };
}

const refcountBlock = (craft: Craft): number => craft.word(craft.header.refcountTableOffset + 4);

/** Repairs it; what it shows stays. */
async function expectShownTheSame(disk: MemoryDisk): Promise<void> {
  const view = async (): Promise<Uint8Array> => {
    await using image = await openOn(disk, IMAGE, 'read');
    return await readAll(image);
  };
  const before = await view();
  await using storage = await memoryBackend(disk).open(IMAGE, 'write');
  const { found, left } = await qcow2.repair(storage, { scope: 'all' });
  expect(left.corruptions).toBeLessThan(found.corruptions);
  expect(Buffer.compare(await view(), before)).toBe(0);
}

describe('a repair leaves as it is what an L2 table over other metadata shows:', () => {
  test('refcounts that are too low are raised in blocks elsewhere', async () => {
    const { disk, craft } = await overlain((of) => [refcountBlock(of)]);
    craft.addReference(craft.hostOf(3), -1);
    await expectShownTheSame(disk);
  });

  test('these do not lie where something is shown that nothing counts', async () => {
    const { disk, craft } = await overlain((of) => {
      const end = of.fileLength;
      of.set(end, new Uint8Array(CLUSTER).fill(9));
      return [refcountBlock(of), end];
    });
    craft.addReference(craft.hostOf(3), -1);
    await expectShownTheSame(disk);
  });

  test('copied flags of an L2 table', async () => {
    const { disk, craft } = await overlain((of) => {
      const { l1TableOffset } = of.header;
      return [entryOffset(of.word(l1TableOffset), of.word(l1TableOffset + 4))];
    });
    craft.setWord(craft.entryAt(4), craft.word(craft.entryAt(4)) | HIGH_COPIED);
    craft.addReference(craft.hostOf(3), -1);
    await expectShownTheSame(disk);
  });
});
