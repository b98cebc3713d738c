import { type ChainLayer, identityOf, type OpenChain, openChain } from '@downfold/chain';
import type { Image, ImageSnapshot } from '@downfold/image';
import { isQcow2, type Snapshots } from '@downfold/qcow2';
import { type Access, backend, environmentFor } from '../environment.ts';
import { UsageError } from '../failure.ts';
import { absolute } from '../paths.ts';

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
  const { id } = findSnapshot(await snapshots.list(), wanted, file);
  return await snapshots.open(id);
}

/** The internal snapshots of an image. @throws UsageError when its format has none */
export function snapshotsOf(image: Image, file: string): Snapshots {
  if (isQcow2(image)) return image.snapshots;
  throw new UsageError(`${file}: ${image.format} images have no internal snapshots`);
}

/** A snapshot by `ID`, by `NAME`, or by `snapshot.id=ID,snapshot.name=NAME` of which one may be left out. @throws UsageError */
export function findSnapshot(
  snapshots: readonly ImageSnapshot[],
  wanted: string,
  file: string,
): ImageSnapshot {
  const said = wanted.includes('snapshot.')
    ? Object.fromEntries(wanted.split(',').map((part) => part.split('=', 2)))
    : null;
  const found =
    said === null
      ? (snapshots.find(({ id }) => id === wanted) ?? snapshots.find(({ name }) => name === wanted))
      : snapshots.find(
          ({ id, name }) =>
            id === (said['snapshot.id'] ?? id) && name === (said['snapshot.name'] ?? name),
        );
  if (found !== undefined) return found;
  throw new UsageError(
    `${file}: has no internal snapshot '${wanted}'; 'downfold snapshot -l' lists them`,
  );
}

/** @throws UsageError when a target is one of the files that are read, under whatever name */
export async function assertNotAmong(target: string, chains: readonly OpenChain[]): Promise<void> {
  for (const { layers } of chains)
    for (const { facts } of layers)
      if (facts.path === target || (await isSameFile(facts, target)))
        throw new UsageError(`'${target}' is one of the images that are read: ${facts.path}`);
}

async function isSameFile({ identity }: ChainLayer['facts'], path: string): Promise<boolean> {
  const facts = await identityOf(path, backend);
  return facts !== null && facts.device === identity.device && facts.inode === identity.inode;
}
