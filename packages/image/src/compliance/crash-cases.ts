import { assertSameBytes, type CaseContext } from '@downfold/compliance';
import type { Image } from '../image.ts';
import type { ImageCase } from './cases.ts';
import { expectEqual, fail } from './expect.ts';
import type { Layer } from './layer.ts';
import { RandomChanges } from './random-changes.ts';
import type { ImageTestBed } from './test-bed.ts';

const STEPS = 8;

/** How many of the crashes with leaks have them reclaimed. */
const RECLAIMED = 0.2;

/** Bytes compared at a time. */
const PIECE_BYTES = 4096;

/** What the disk read as after a change, and where in the log it is known to be durable from. */
interface Moment {
  readonly model: Uint8Array;
  /** Length of the log when the flush resolved that covers it; null: none did. */
  durableAt: number | null;
}

/** Changes a layer, and resolves with what it was on the way. */
type History = (
  layer: Layer,
  bed: ImageTestBed,
  context: CaseContext,
) => Promise<readonly Moment[]>;

const histories: readonly (readonly [id: string, because: string, history: History])[] = [
  [
    'changes',
    'power goes while clusters are allocated, mapped, let go and used again',
    randomHistory,
  ],
  ['growth', 'power goes while tables are added, moved and made longer', growingHistory],
];

/** A crash at any moment leaves an image that is sound but for leaks, and shows for every byte something it was. */
export const crashCases: readonly ImageCase[] = histories.flatMap(([id, because, history]) =>
  [false, true].map((backed) => ({
    id: `crash/${id}${backed ? '/backed' : ''}`,
    because,
    needs: [...(backed ? ['backing' as const] : []), ...(id === 'growth' ? ['grow' as const] : [])],
    run: async (bed, context) => {
      const layer = await bed.layer({ backed });
      await layer.write(0, bed.cluster * 2);
      await layer.image.flush();
      await layer.file.startLog();
      await expectSurvival(layer, bed, context, await history(layer, bed, context));
    },
  })),
);

async function expectSurvival(
  layer: Layer,
  bed: ImageTestBed,
  { random }: CaseContext,
  moments: readonly Moment[],
): Promise<void> {
  for (const { at, kept } of layer.file.crashes(random)) {
    const storage = layer.file.after(kept);
    await using image = await layer.openAfter(storage);
    const first = moments.findLastIndex(({ durableAt }) => durableAt !== null && durableAt <= at);
    const view = await layer.view(image);
    const models = moments.slice(first).map(({ model }) => model);
    expectOneOf(view, models);
    const { corruptions, leaks } = await image.check();
    expectEqual(corruptions, 0, `corruptions after a crash at ${at}`);
    if (leaks === 0 || random() > RECLAIMED) continue;
    const file = await layer.file.restored(storage);
    await using leaking = await bed.format.open(await file.open(), { mode: 'write' });
    await expectReclaimed(layer, leaking, view);
  }
}

async function randomHistory(
  layer: Layer,
  bed: ImageTestBed,
  context: CaseContext,
): Promise<readonly Moment[]> {
  const changes = new RandomChanges(layer, bed, context, await bed.copySource(bed.cluster * 3));
  const moments: Moment[] = [{ model: layer.model.slice(), durableAt: 0 }];
  // data alone: no entry changes, and no chance decides whether that happens
  await layer.write(1, bed.cluster);
  await layer.image.flush();
  moments.push({ model: layer.model.slice(), durableAt: layer.file.logged });
  for (let step = 0; step < STEPS; step++) {
    await changes.next();
    const moment: Moment = { model: layer.model.slice(), durableAt: null };
    moments.push(moment);
    if (context.random() < 0.7) continue;
    await layer.image.flush();
    moment.durableAt = layer.file.logged;
  }
  return moments;
}

/** Where clusters are small, beyond what one cluster of any table covers. */
async function growingHistory(layer: Layer, { cluster }: ImageTestBed): Promise<readonly Moment[]> {
  const small = cluster < 1024;
  const moments: Moment[] = [{ model: layer.model, durableAt: 0 }];
  await layer.resize(layer.size + cluster * (small ? 4500 : 4));
  moments.push({ model: layer.model.slice(), durableAt: null });
  await layer.write(cluster / 2, cluster * (small ? 300 : 3));
  await layer.image.flush();
  moments.push({ model: layer.model.slice(), durableAt: layer.file.logged });
  await layer.write(layer.size - cluster, cluster);
  moments.push({ model: layer.model, durableAt: null });
  return moments;
}

/** Each byte is what it was in one of `models`, and the size is the size of one. */
function expectOneOf(view: Uint8Array, models: readonly Uint8Array[]): void {
  const sizes = new Set(models.map(({ length }) => length));
  if (!sizes.has(view.length)) fail(`size ${view.length} after a crash, not one of ${[...sizes]}`);
  for (let at = 0; at < view.length; at += PIECE_BYTES) {
    const piece = view.subarray(at, at + PIECE_BYTES);
    const olds = models.map((model) => model.subarray(at, at + piece.length));
    if (olds.some((old) => Buffer.compare(old, piece) === 0)) continue;
    const foreign = piece.findIndex((byte, index) => !olds.some((old) => old[index] === byte));
    if (foreign >= 0) fail(`byte ${at + foreign} was never ${piece[foreign]} since the last flush`);
  }
}

/** Leaks go, durably, and nothing else changes. */
async function expectReclaimed(layer: Layer, image: Image, view: Uint8Array): Promise<void> {
  if ((await image.reclaimLeaks()) === 0) fail('reclaimLeaks found none of the leaks');
  const { corruptions, leaks } = await image.check();
  expectEqual([corruptions, leaks], [0, 0], 'corruptions and leaks after reclaimLeaks');
  assertSameBytes(await layer.view(image), view, 'the disk after reclaimLeaks');
}
