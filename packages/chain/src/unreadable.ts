import { dependentsOf } from './dependents.ts';
import type { Formats } from './policy.ts';
import type { PoolGraph, PoolImage, PoolProblem } from './pool.ts';

/** Problems of files that are no images, whatever names them: they have no backing file. */
const NO_IMAGE: ReadonlySet<string> = new Set([
  'IMAGE_NOT_RECOGNISED',
  'STORAGE_NOT_FOUND',
  'STORAGE_NOT_REGULAR',
]);
/** Problems of a backing file of which it is known all the same which file it is, or that there is none. */
const LOCATED: ReadonlySet<string> = new Set([
  'CHAIN_MISSING',
  'CHAIN_NO_FORMAT',
  'STORAGE_NOT_FOUND',
]);

/**
 * What may hide images of a pool that depend on others: files that have the look of an image or could not be looked at, directories that
 * could not be listed, and images whose backing file may not be opened or was not found out. Not: files that are known to be no
 * images, and images that are marked (they have no meaning to lose) with all above them. In order of path.
 */
export function unreadableIn(graph: PoolGraph, formats: Formats): readonly PoolProblem[] {
  const known = new Set(graph.images.map(({ path }) => path));
  const files = graph.problems.filter(({ path, code }) => !known.has(path) && !NO_IMAGE.has(code));
  const images = graph.images
    .filter((image) => hides(image, formats) && hasMeaning(graph, image))
    .map(({ path, problem }) => ({ path, ...(problem as Omit<PoolProblem, 'path'>) }));
  return [...files, ...images].sort((a, b) => (a.path < b.path ? -1 : 1));
}

/** Whether an image may read through another one of the pool, and nothing tells. */
function hides({ problem, backing, backingNode }: PoolImage, formats: Formats): boolean {
  if (problem === null || backingNode !== null || LOCATED.has(problem.code)) return false;
  // it is none of the pool, and cannot lead back into it
  const format = formats.find(({ name }) => name === backing?.format);
  return problem.code !== 'CHAIN_OUTSIDE_ROOTS' || format?.abilities.has('backing') !== false;
}

function hasMeaning(graph: PoolGraph, image: PoolImage): boolean {
  return [image, ...dependentsOf(graph, image)].some(({ mark }) => mark === null);
}
