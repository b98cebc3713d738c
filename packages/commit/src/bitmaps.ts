import type { ChainLayer } from '@downfold/chain';
import { type BitmapFacts, type Bitmaps, dirtyRanges, type Image } from '@downfold/image';
import { DownfoldError, type GuestRange } from '@downfold/units';
import type { BitmapFate, BitmapsMode } from './bitmap-fate.ts';
import { CommitError } from './errors.ts';
import type { Layers } from './layers.ts';
import type { CommitPlan } from './plan.ts';
import { wholeOf } from './view.ts';

/** The bitmaps of one layer. */
interface Known {
  readonly layer: ChainLayer;
  readonly list: readonly BitmapFacts[];
}

/**
 * What becomes of the bitmaps of base; writes nothing. `layers`: what is committed, bottom first.
 * @throws CommitError `COMMIT_BAD_REQUEST` for what cannot be merged: an inconsistent one, or into a base that can have none
 */
export async function planBitmaps(
  mode: BitmapsMode,
  base: ChainLayer,
  layers: readonly ChainLayer[],
): Promise<readonly BitmapFate[]> {
  const own = await bitmapsOf(base);
  if (mode === 'drop')
    return own.list.map(({ name }) => ({ name, fate: 'dropped' as const, from: [] }));
  const known = mode === 'merge' ? await Promise.all(layers.map(bitmapsOf)) : [];
  const names = new Set(known.flatMap(({ list }) => list.map(({ name }) => name)));
  const fates: BitmapFate[] = own.list
    .filter(({ name }) => !names.has(name))
    .map(({ name, inconsistent }) => ({
      name,
      fate: inconsistent ? 'inconsistent' : 'records',
      from: [],
    }));
  for (const name of names) {
    const from = known.filter(({ list }) => list.some((one) => one.name === name));
    for (const one of [own, ...from]) assertConsistent(one, name);
    const isThere = own.list.some((one) => one.name === name);
    if (!isThere) await assertCanHave(base, modelOf(from, name));
    const nodes = from.map(({ layer }) => layer.facts.node);
    fates.push({ name, fate: isThere ? 'merged' : 'created', from: nodes });
  }
  return fates;
}

/**
 * Does to the bitmaps of base what the plan says, durably, before the first byte of data: from here on they say too much at most, whatever becomes of
 * the job. Then those that got what the layers say do not record what the job writes, which is just that. What an attempt before did is not done
 * again, and what a crash left inconsistent stays so.
 */
export async function applyBitmaps(plan: CommitPlan, layers: Layers): Promise<void> {
  const bitmaps = baseOf(plan, layers)?.bitmaps;
  const list = (await bitmaps?.list()) ?? [];
  for (const { name, fate } of plan.bitmaps ?? [])
    if (fate === 'dropped' && list.some((one) => one.name === name)) await bitmaps?.remove(name);
  if (bitmaps !== undefined)
    for (const fate of mergedBy(plan)) {
      const own = list.find(({ name }) => name === fate.name);
      if (own?.inconsistent !== true)
        await mergeInto(bitmaps, own === undefined, fate, plan, layers);
    }
  await pauseBitmaps(plan, layers);
}

/** Of a job that goes on: the merged ones were merged before it began, and need not record; those that a crash left inconsistent stay so. */
export async function pauseBitmaps(plan: CommitPlan, layers: Layers): Promise<void> {
  // what lies past the old end of base has no bits before it grows
  if (plan.growBaseTo !== null || mergedBy(plan).length === 0) return;
  const bitmaps = baseOf(plan, layers)?.bitmaps;
  const list = (await bitmaps?.list()) ?? [];
  for (const { name } of mergedBy(plan))
    if (list.some((one) => one.name === name && !one.inconsistent)) await bitmaps?.pause(name);
}

/** Saves the bitmaps of what a job has written, as closing does: what fails here can still be tried again. */
export async function saveBitmaps(layers: Layers): Promise<void> {
  for (const { image } of layers.written()) await image.bitmaps?.save();
}

/**
 * The same after a failure, which is what counts: bitmaps that cannot be saved, most often since there is no room, stay in use. Resolves with the paths
 * of their images.
 */
export async function saveBitmapsIfPossible(layers: Layers): Promise<readonly string[]> {
  const lost: string[] = [];
  for (const { facts, image } of layers.written())
    try {
      await image.bitmaps?.save();
    } catch (cause) {
      if (!(cause instanceof DownfoldError)) throw cause;
      image.bitmaps?.abandon();
      lost.push(facts.path);
    }
  return lost;
}

function mergedBy({ bitmaps = [] }: CommitPlan): readonly BitmapFate[] {
  return bitmaps.filter(({ fate }) => fate === 'merged' || fate === 'created');
}

function baseOf({ request }: CommitPlan, layers: Layers): Image | null {
  return request.base === null ? null : layers.get(request.base).image;
}

/** Adds to a bitmap of base, which is `missing` or there, what the layers say; all at once. */
async function mergeInto(
  bitmaps: Bitmaps,
  missing: boolean,
  fate: BitmapFate,
  plan: CommitPlan,
  layers: Layers,
): Promise<void> {
  const path = layers.path(plan.request.base, plan.request.top);
  if (missing) await bitmaps.add(modelOf(await Promise.all(path.map(bitmapsOf)), fate.name));
  await bitmaps.mark(fate.name, changesOf(fate, plan, path));
}

/**
 * What of the disk the layers say has changed. A layer without the bitmap, above one that has it, was written to while nobody recorded: all that it
 * holds counts as changed, and so do the zeros that a commit puts past the end of a short top.
 */
async function* changesOf(
  { name, fate, from }: BitmapFate,
  { zeroTail }: CommitPlan,
  path: readonly ChainLayer[],
): AsyncGenerator<Iterable<GuestRange>, void, undefined> {
  let begun = fate === 'merged';
  for (const { facts, image } of path) {
    const { bitmaps } = image;
    if (from.includes(facts.node) && bitmaps !== undefined) {
      yield dirtyRanges(await bitmaps.content(name));
      begun = true;
    } else if (begun)
      for await (const batch of image.extents(wholeOf(facts)))
        yield [...batch].filter(({ status }) => status !== 'unallocated');
  }
  if (zeroTail !== null) yield [zeroTail];
}

async function bitmapsOf(layer: ChainLayer): Promise<Known> {
  return { layer, list: (await layer.image.bitmaps?.list()) ?? [] };
}

/** A new bitmap of base is as the uppermost one of its name. */
function modelOf(known: readonly Known[], name: string): BitmapFacts {
  const models = known.flatMap(({ list }) => list.filter((one) => one.name === name));
  return models.at(-1) as BitmapFacts;
}

function assertConsistent({ layer, list }: Known, name: string): void {
  if (list.find((one) => one.name === name)?.inconsistent !== true) return;
  const { path } = layer.facts;
  throw refusal(
    path,
    `its bitmap '${name}' is inconsistent, and cannot be merged: remove it first (downfold bitmap --remove), or leave bitmaps out (--bitmaps keep)`,
  );
}

async function assertCanHave({ facts, image }: ChainLayer, model: BitmapFacts): Promise<void> {
  if (image.bitmaps === undefined)
    throw refusal(
      facts.path,
      `${facts.format} images have no bitmaps, and '${model.name}' would be lost; leave it out with --bitmaps keep`,
    );
  await image.bitmaps.assertCanAdd(model);
}

function refusal(image: string, problem: string): CommitError {
  return new CommitError('COMMIT_BAD_REQUEST', `${image}: ${problem}`, { image });
}
