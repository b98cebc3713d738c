import { posix } from 'node:path';
import {
  type ChainEnvironment,
  type ChainLayer,
  identityKey,
  imageOf,
  type OpenChain,
  openChain,
  openImageAt,
  overlaysOf,
  readMark,
  scanPool,
} from '@downfold/chain';
import { createEngine } from '@downfold/commit';
import { clock, isAlive, thisProcess } from '@downfold/host';
import { isUrl } from '@downfold/storage';
import { ServerError } from '../errors.ts';
import type { FormatName } from '../qmp/schema/nodes.ts';

/** Another image that is the disk now. */
export interface Successor {
  readonly path: string;
  readonly format: FormatName;
}

/**
 * The image that is the disk in the place of the one at `path`, which an active commit made a part of it; null: it is itself. An interrupted commit's
 * journal tells it from its pivot on, before any image is marked; later the mark of the image does: then its successor is the uppermost image below
 * it that has none.
 */
export async function successorOf(
  path: string,
  format: string,
  environment: ChainEnvironment,
): Promise<Successor | null> {
  const journal = await journalBeside(path, environment);
  if (journal?.pivoted !== null && journal?.pivoted !== undefined) {
    const { pivoted, plan } = journal;
    const facts = plan.images.find((one) => one.path === pivoted);
    return { path: pivoted, format: (facts?.format ?? format) as FormatName };
  }
  const policy = { ...environment.policy, allowMarked: true };
  const inside = { ...environment, policy };
  {
    await using image = await openImageAt(path, format, 'read', inside);
    if ((await readMark(image, inside.backend))?.state !== 'superseded') return null;
  }
  await using chain = await openChain(path, format, inside);
  const next = chain.layers.findLast(({ facts }) => facts.mark === null);
  if (next === undefined) return null;
  await assertNothingStandsOn(next, chain, environment);
  return asSuccessor(next);
}

/** Since it became the disk a snapshot may have been put on it: then it is a backing file, and not to be written. */
async function assertNothingStandsOn(
  { facts }: ChainLayer,
  { layers }: OpenChain,
  environment: ChainEnvironment,
): Promise<void> {
  // a server does not tell what else it has
  if (isUrl(facts.path)) return;
  const pool = await scanPool([posix.dirname(facts.path)], environment, { recursive: false });
  const image = imageOf(pool, facts.identity);
  const known = new Set(layers.map((layer) => identityKey(layer.facts.identity)));
  const above = (image === undefined ? [] : overlaysOf(pool, image)).find(
    ({ identity, mark }) => mark === null && !known.has(identityKey(identity)),
  );
  if (above === undefined) return;
  throw new ServerError(
    'SERVER_SUPERSEDED',
    `${layers.at(-1)?.facts.path}: was committed into '${facts.path}', on which '${above.path}' stands now; name the image that is the disk`,
    { image: facts.path, overlay: above.path },
  );
}

/** The interrupted job whose journal lies beside an image. */
export function journalBeside(
  path: string,
  environment: ChainEnvironment,
): ReturnType<ReturnType<typeof createEngine>['journalOf']> {
  return createEngine({
    ...environment,
    strategies: [],
    owner: thisProcess(),
    isAlive,
    newJobId: () => '',
    clock,
  }).journalOf(path);
}

function asSuccessor({ facts }: ChainLayer): Successor {
  return { path: facts.path, format: facts.format as FormatName };
}
