import {
  type ChainLayer,
  identityKey,
  identityOf,
  type OpenChain,
  openChain,
} from '@downfold/chain';
import type { Image, ImageSnapshot } from '@downfold/image';
import { isQcow2, type Snapshots } from '@downfold/qcow2';
import { type Access, backend, environmentFor } from '../environment.ts';
import { UsageError } from '../failure.ts';
import { keyedParts, partsOf } from '../keyed-parts.ts';
import { absolute } from '../paths.ts';
import { partOf } from './target.ts';

/** Opens the chain of an image, for reading; with `snapshot` its leaf shows what it did then. */
export async function openSource(
  file: string,
  format: string,
  access: Access,
  snapshot?: string,
): Promise<OpenChain> {
  const chain = await openChain(absolute(file), format, environmentFor(file, access));
  if (snapshot === undefined) return chain;
  await using opened = new AsyncDisposableStack();
  opened.use(chain);
  const leaf = chain.layers.at(-1) as ChainLayer;
  const image = opened.use(await openSnapshot(leaf.image, snapshot, file));
  const all = opened.move();
  return {
    layers: [...chain.layers.slice(0, -1), { ...leaf, image }],
    [Symbol.asyncDispose]: () => all.disposeAsync(),
  };
}

async function openSnapshot(image: Image, wanted: string, file: string): Promise<Image> {
  const snapshots = snapshotsOf(image, file);
  const { id } = snapshotSaid(await snapshots.list(), wanted, file);
  return await snapshots.open(id);
}

/** The internal snapshots of an image. @throws UsageError when its format has none */
export function snapshotsOf(image: Image, file: string): Snapshots {
  if (isQcow2(image)) return image.snapshots;
  throw new UsageError(`${file}: ${image.format} images have no internal snapshots`);
}

/** A snapshot by what comes first, its ID unless said, or else by the other. @throws UsageError */
export function findSnapshot(
  snapshots: readonly ImageSnapshot[],
  wanted: string,
  file: string,
  first: 'id' | 'name' = 'id',
): ImageSnapshot {
  const second = first === 'id' ? 'name' : 'id';
  const found =
    snapshots.find((one) => one[first] === wanted) ??
    snapshots.find((one) => one[second] === wanted);
  if (found !== undefined) return found;
  throw new UsageError(
    `${file}: has no internal snapshot '${wanted}'; 'downfold snapshot -l' lists them`,
  );
}

const KEYED = /^snapshot\.(id|name)=/;

/** As `-l` says one that is read: so, or `snapshot.id=ID,snapshot.name=NAME`, of which one may be left out. @throws UsageError */
function snapshotSaid(
  snapshots: readonly ImageSnapshot[],
  said: string,
  file: string,
): ImageSnapshot {
  if (!partsOf(said).every((part) => KEYED.test(part))) return findSnapshot(snapshots, said, file);
  const { 'snapshot.id': id, 'snapshot.name': name } = Object.fromEntries(keyedParts(said));
  const fits = snapshots.filter(
    (one) => one.id === (id ?? one.id) && one.name === (name ?? one.name),
  );
  return findSnapshot(fits, fits[0]?.id ?? said, file);
}

/** @throws UsageError when a target, or what it is called until it is whole, is one of the files that are read, data files too, under whatever name */
export async function assertNotAmong(target: string, chains: readonly OpenChain[]): Promise<void> {
  await assertOther(target, chains);
  await assertOther(partOf(target), chains);
}

async function assertOther(target: string, chains: readonly OpenChain[]): Promise<void> {
  const identity = await identityOf(target, backend);
  const key = identity === null ? null : identityKey(identity);
  for (const { layers } of chains)
    for (const { facts } of layers) {
      const files = [facts, ...(facts.dataFile === undefined ? [] : [facts.dataFile])];
      if (facts.path === target || files.some((file) => identityKey(file.identity) === key))
        throw new UsageError(`'${target}' is one of the images that are read: ${facts.path}`);
    }
}
