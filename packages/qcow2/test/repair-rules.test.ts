import { type MemoryDisk, memoryBackend, record } from '@downfold/storage-memory';
import { expect, test } from 'vitest';
import { qcow2, type RepairReport } from '../src/index.ts';
import {
  AUTOCLEAR_AT,
  ENTRY_BYTES,
  HIGH_COPIED,
  INCOMPATIBLE,
  INCOMPATIBLE_AT,
} from '../src/structures.ts';
import { Craft } from './craft.ts';
import { IMAGE } from './crash-lab.ts';
import { prepared, put } from './scenarios.ts';
import { bytesOn, openOn, readAll } from './support.ts';

/** An image of six clusters of data, and a hand on its bytes. */
async function made(refcountBits = 16): Promise<{ disk: MemoryDisk; craft: Craft }> {
  const options = { clusterSize: 512, virtualSize: 16_384, refcountBits };
  const disk = await prepared(options, (image) => put(image, 0, 3072));
  return { disk, craft: new Craft(disk, IMAGE) };
}

async function repair(disk: MemoryDisk): Promise<RepairReport> {
  await using storage = await memoryBackend(disk).open(IMAGE, 'write');
  return await qcow2.repair(storage, { scope: 'all' });
}

/** An entry that no repair puts right; what it referred to looks leaked. */
function breakEntry(craft: Craft): void {
  craft.setWord(craft.entryAt(2), (craft.word(craft.entryAt(2)) | 0x0001_0000) >>> 0);
}

test('what a broken entry may have meant is not given up, and nothing is written', async () => {
  const { disk, craft } = await made();
  breakEntry(craft);
  craft.autoclear(0, 0x100);
  const broken = bytesOn(disk, IMAGE);
  const { found, left, leaksFixed, corruptionsFixed } = await repair(disk);
  expect([found.corruptions, found.leaks, left.corruptions, left.leaks]).toEqual([1, 1, 1, 1]);
  expect([leaksFixed, corruptionsFixed]).toEqual([0, 0]);
  expect(bytesOn(disk, IMAGE)).toEqual(broken);
});

test('marks stay while a corruption is left', async () => {
  const { disk, craft } = await made();
  breakEntry(craft);
  const marks = INCOMPATIBLE.corrupt | INCOMPATIBLE.dirty;
  craft.setWord(INCOMPATIBLE_AT + 4, marks);
  craft.setWord(craft.entryAt(0), craft.word(craft.entryAt(0)) & 0x7fff_ffff);
  expect((await repair(disk)).corruptionsFixed).toBe(1);
  expect(craft.word(INCOMPATIBLE_AT + 4)).toBe(marks);
});

test('W8: unknown autoclear bits go before the first other write', async () => {
  const { disk, craft } = await made();
  craft.append(new Uint8Array(512));
  craft.autoclear(0, 0x100);
  const recording = record(disk);
  {
    await using storage = await recording.backend.open(IMAGE, 'write');
    await qcow2.repair(storage, { scope: 'leaks' });
  }
  const [header, block, ...rest] = recording.log.flatMap((entry) =>
    entry.kind === 'file' && entry.do === 'write' ? [entry] : [],
  );
  expect(header?.offset).toBe(0);
  expect(header?.bytes.subarray(AUTOCLEAR_AT, AUTOCLEAR_AT + 8)).toEqual(new Uint8Array(8));
  expect(block?.offset).toBeGreaterThan(0);
  expect(rest).toEqual([]);
});

test('a refcount that does not fit is not raised, and its neighbours stay', async () => {
  const { disk, craft } = await made(1);
  craft.set(craft.entryAt(0), craft.bytes(craft.entryAt(1), ENTRY_BYTES));
  craft.addReference(craft.hostOf(5), -1);
  const { left } = await repair(disk);
  expect([left.corruptions, left.leaks]).toEqual([1, 0]);
});

test('W13: a table that the guest sees as data is not written', async () => {
  const { disk, craft } = await made();
  const table = craft.entryAt(0);
  craft.set(craft.entryAt(4), craft.bytes(craft.header.l1TableOffset, ENTRY_BYTES));
  const view = async (): Promise<Uint8Array> => readAll(await openOn(disk, IMAGE, 'read'));
  const before = await view();
  expect(before.subarray(2048, 2560)).toEqual(craft.bytes(table, 512));
  await repair(disk);
  expect(await view()).toEqual(before);
  // the next write moves the table away, so that the two part
  expect(craft.word(craft.header.l1TableOffset) & HIGH_COPIED).toBe(0);
});

test('W13: nor is one that a broken entry may refer to as well', async () => {
  const { disk, craft } = await made();
  breakEntry(craft);
  const table = craft.entryAt(0);
  craft.addReference(table, 1);
  // a flag that would be put right
  craft.setWord(table, craft.word(table) & ~HIGH_COPIED);
  const before = craft.bytes(table, 512);
  await repair(disk);
  expect(craft.bytes(table, 512)).toEqual(before);
});

test('refcounts are not rebuilt where something points to, past the end of the file', async () => {
  const { disk, craft } = await made();
  // the refcount table cannot stay, and is built anew at the end of the file
  craft.setWord(craft.header.refcountTableOffset + ENTRY_BYTES + 4, 4);
  const end = bytesOn(disk, IMAGE).length;
  craft.setWord(craft.entryAt(2) + 4, end + 512);
  const broken = bytesOn(disk, IMAGE);
  // nobody reads what is not there; once something is there, everybody would
  await expect(repair(disk)).rejects.toMatchObject({
    code: 'IMAGE_CORRUPT',
    details: { image: IMAGE, offset: end + 512 },
  });
  expect(bytesOn(disk, IMAGE)).toEqual(broken);
  craft.setWord(craft.entryAt(2) + 4, end + 512 * 100);
  const { found, left } = await repair(disk);
  expect(left.corruptions).toBeLessThan(found.corruptions);
});
