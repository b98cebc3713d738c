import { posix } from 'node:path';
import { DownfoldError, hostOffset } from '@downfold/units';
import { identityKey, rootsFor } from './open-chain.ts';
import type { ChainPolicy } from './policy.ts';
import type { PoolGraph, PoolImage, PoolProblem } from './pool.ts';
import { type ChainEnvironment, factsOf, openImageAt, resolveBacking } from './resolve.ts';

const HEAD_BYTES = 512;
/** Subdirectories are not entered deeper than this. */
const DEEPEST = 16;

/** Options of a scan. */
export interface ScanOptions {
  /** Also look into subdirectories. Default true. */
  readonly recursive?: boolean;
}

/** An image found, before its backing file is known by node. */
interface Found {
  readonly image: PoolImage;
  readonly backingKey: string | null;
}

/**
 * Finds every image under `directories`, and those they name as backing files, and who depends on whom. A file is an image when a
 * format recognises it; raw files are images only when one names them. Each is opened read-only and closed again. What cannot be read
 * is a problem in the result, never an exception; marked images are listed with their mark.
 */
export async function scanPool(
  directories: readonly string[],
  environment: ChainEnvironment,
  options: ScanOptions = {},
): Promise<PoolGraph> {
  const { backend } = environment;
  const policy: ChainPolicy = { ...environment.policy, allowMarked: true };
  const inside: ChainEnvironment = { ...environment, policy };
  const real = [
    ...new Set(await Promise.all(directories.map((directory) => backend.realPath(directory)))),
  ].sort();
  const problems: PoolProblem[] = [];
  const found = new Map<string, Found>();
  const queue: { path: string; format: string | null }[] = [];
  for (const directory of real)
    await listFiles(directory, DEEPEST, options.recursive ?? true, inside, queue, problems);
  queue.sort((a, b) => (a.path < b.path ? -1 : 1));
  const roots = [...real, ...(policy.roots === null ? [] : await rootsFor('/', inside))];
  for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
    environment.signal?.throwIfAborted();
    await visit(next, roots, inside, found, queue, problems);
  }
  return { directories: real, images: linked(found), problems };
}

async function listFiles(
  directory: string,
  depth: number,
  recursive: boolean,
  environment: ChainEnvironment,
  files: { path: string; format: string | null }[],
  problems: PoolProblem[],
): Promise<void> {
  const entries = await environment.backend.list(directory).catch((cause: unknown) => {
    problems.push(problemOf(directory, cause));
    return [];
  });
  for (const { name, kind } of entries) {
    const path = posix.join(directory, name);
    if (kind === 'directory' && recursive && depth > 0)
      await listFiles(path, depth - 1, recursive, environment, files, problems);
    if (kind === 'file') files.push({ path, format: null });
  }
}

/** Reads one file; a format of null means: whatever recognises it. */
async function visit(
  { path, format }: { path: string; format: string | null },
  roots: readonly string[],
  environment: ChainEnvironment,
  found: Map<string, Found>,
  queue: { path: string; format: string | null }[],
  problems: PoolProblem[],
): Promise<void> {
  try {
    const { identity, kind } = await environment.backend.facts(path);
    const key = identityKey(identity);
    if (found.has(key) || (kind !== 'file' && format === null)) return;
    const name = format ?? (await recognise(path, environment));
    if (name === null) return;
    await using image = await openImageAt(path, name, 'read', environment);
    const facts = await factsOf(`p${found.size}`, path, image, environment.backend);
    const { backingKey, problem } = await follow(facts, roots, environment, queue);
    found.set(key, { image: { ...facts, backingNode: null, problem }, backingKey });
  } catch (cause) {
    environment.signal?.throwIfAborted();
    problems.push(problemOf(path, cause));
  }
}

async function recognise(path: string, environment: ChainEnvironment): Promise<string | null> {
  await using storage = await environment.backend.open(path, 'read');
  const head = new Uint8Array(HEAD_BYTES);
  await storage.read(hostOffset(0), head);
  return environment.formats.find((one) => one.recognises(head))?.name ?? null;
}

/** Identity of an image's backing file, which is queued as well; or why it cannot be had. */
async function follow(
  facts: Pick<PoolImage, 'path' | 'backing'>,
  roots: readonly string[],
  environment: ChainEnvironment,
  queue: { path: string; format: string | null }[],
): Promise<{ backingKey: string | null; problem: PoolImage['problem'] }> {
  if (facts.backing === null) return { backingKey: null, problem: null };
  try {
    const backing = await resolveBacking(facts.backing, facts.path, roots, environment.backend);
    const { identity } = await environment.backend.facts(backing.path);
    queue.push(backing);
    return { backingKey: identityKey(identity), problem: null };
  } catch (cause) {
    const { code, message } = problemOf(facts.path, cause);
    return { backingKey: null, problem: { code, message } };
  }
}

function linked(found: ReadonlyMap<string, Found>): readonly PoolImage[] {
  return [...found.values()]
    .map(({ image, backingKey }) => ({
      ...image,
      backingNode: backingKey === null ? null : (found.get(backingKey)?.image.node ?? null),
    }))
    .sort((a, b) => (a.path < b.path ? -1 : 1));
}

function problemOf(path: string, cause: unknown): PoolProblem {
  if (!(cause instanceof DownfoldError)) throw cause;
  return { path, code: cause.code, message: cause.message };
}
