import { posix } from 'node:path';
import { isUrl, isUtf8, StorageError } from '@downfold/storage';
import { DownfoldError } from '@downfold/units';
import { ChainError } from './errors.ts';
import { identityKey, identityOf } from './identity.ts';
import { locateBacking, noFormat, rootsFor } from './locate.ts';
import type { ChainEnvironment, ChainPolicy } from './policy.ts';
import type { PoolGraph, PoolImage, PoolProblem } from './pool.ts';
import { recogniseOwn } from './recognise.ts';
import { factsOf, openImageAt } from './resolve.ts';

/** Subdirectories are not entered deeper than this. */
const DEEPEST = 16;

/** Options of a scan. */
export interface ScanOptions {
  /** Also look into subdirectories. Default true. */
  readonly recursive?: boolean;
}

/** A file to look at. A format of null: whatever recognises it; else what an overlay says it is. */
interface Candidate {
  readonly path: string;
  /** How it was come by: `path`, or a link that leads there. Whoever opens it by that name looks for its backing file beside it. */
  readonly named: string;
  readonly format: string | null;
}

/** An image found, before its backing file is known by node. */
interface Found {
  readonly image: PoolImage;
  readonly backingKey: string | null;
  /** Whether an overlay named the format: that outweighs what the bytes look like, which a guest may have written. */
  readonly said: boolean;
}

/** What one scan carries along. */
interface Scan {
  /** Marked and encrypted images are opened too. */
  readonly environment: ChainEnvironment;
  /** Where backing files may lie. */
  readonly roots: readonly string[];
  readonly queue: Candidate[];
  readonly found: Map<string, Found>;
  readonly problems: PoolProblem[];
}

/**
 * Finds every image under `directories`, and those they name as backing files, and who depends on whom. A file is an image when a
 * format recognises it; raw files are images only when one names them. Links to files are followed, links to directories are not.
 * Each is opened read-only and closed again. What cannot be read is a problem in the result, never an exception; marked images are
 * listed with their mark.
 */
export async function scanPool(
  directories: readonly string[],
  environment: ChainEnvironment,
  options: ScanOptions = {},
): Promise<PoolGraph> {
  const { backend } = environment;
  // who is only looked for may be in use: nothing of a pool is locked, data files neither; and no guest data is read: finding a key takes
  // seconds for each image
  const policy: ChainPolicy = {
    ...environment.policy,
    allowMarked: true,
    locks: 'none',
    allowLocked: true,
  };
  const inside: ChainEnvironment = { ...environment, policy };
  const real = [
    ...new Set(await Promise.all(directories.map((directory) => backend.realPath(directory)))),
  ].sort();
  const roots = [...real, ...(policy.roots === null ? [] : await rootsFor('/', inside))];
  const scan: Scan = { environment: inside, roots, queue: [], found: new Map(), problems: [] };
  for (const directory of real)
    await listFiles(directory, options.recursive === false ? 0 : DEEPEST, scan);
  scan.queue.sort((a, b) => (a.path < b.path ? -1 : 1));
  for (let next = scan.queue.shift(); next !== undefined; next = scan.queue.shift()) {
    environment.signal?.throwIfAborted();
    await visit(next, scan);
  }
  return { directories: real, images: linked(scan.found), problems: scan.problems };
}

/** Queues the files of a directory and, down to `depth`, of those in it. */
async function listFiles(directory: string, depth: number, scan: Scan): Promise<void> {
  const { backend } = scan.environment;
  const entries = await backend.list(directory).catch((cause: unknown) => {
    report(directory, cause, scan);
    return [];
  });
  for (const { name, kind } of entries) {
    const path = posix.join(directory, name);
    if (!(await isSaid(path, name, scan))) continue;
    if (kind === 'directory' && depth > 0) await listFiles(path, depth - 1, scan);
    if (kind === 'file') scan.queue.push({ path, named: path, format: null });
    if (kind === 'link') {
      const target = await targetOf(path, scan);
      if (target !== null) scan.queue.push({ path: target, named: path, format: null });
    }
  }
}

/** Whether a name that a directory has leads back to its file: one that is no UTF-8 does not, and nobody knows what that file depends on. */
async function isSaid(path: string, name: string, scan: Scan): Promise<boolean> {
  if (isUtf8(name) || (await identityOf(path, scan.environment.backend)) !== null) return true;
  const problem = 'its name is no UTF-8, and cannot be said here; rename it';
  report(path, new ChainError('CHAIN_FORBIDDEN_NAME', `${path}: ${problem}`, { name }), scan);
  return false;
}

/** The file that a link leads to; null: it leads nowhere, which is no problem of a pool. */
async function targetOf(link: string, scan: Scan): Promise<string | null> {
  try {
    return await scan.environment.backend.realPath(link);
  } catch (cause) {
    if (!(cause instanceof StorageError) || cause.code !== 'STORAGE_NOT_FOUND')
      report(link, cause, scan);
    return null;
  }
}

/** Looks at one file, and for its backing file beside the name by which it was come by. */
async function visit(candidate: Candidate, scan: Scan): Promise<void> {
  const { path, named, format } = candidate;
  try {
    const { identity, kind, length } = await scan.environment.backend.facts(path);
    if (format === null && (kind !== 'file' || length === 0)) return;
    const key = identityKey(identity);
    await look(candidate, key, scan);
    await followName(named, key, scan);
  } catch (cause) {
    scan.environment.signal?.throwIfAborted();
    report(path, cause, scan);
  }
}

/** Reads one file, unless it is known already. */
async function look({ path, format }: Candidate, key: string, scan: Scan): Promise<void> {
  const { environment, found } = scan;
  const known = found.get(key);
  if (known !== undefined && (known.said || format === null)) return;
  if (known !== undefined && known.image.format === format) {
    found.set(key, { ...known, said: true });
    return;
  }
  const name = format ?? (await formatNameAt(path, environment));
  if (name === null) return;
  await using image = await openImageAt(path, name, 'read', environment);
  const node = known?.image.node ?? `p${found.size}`;
  const facts = await factsOf(node, path, image, environment.backend);
  const { backingKey, problem } = await follow(facts, path, scan);
  const doubt = known === undefined ? null : doubtOf(known, name);
  found.set(key, {
    image: { ...facts, backingNode: null, problem: problem ?? doubt },
    backingKey,
    said: format !== null,
  });
}

/** An overlay says that a file is of another format than it looks: what it reads through, should it be what it looks, is not known from here on. */
function doubtOf({ image, backingKey }: Found, said: string): PoolImage['problem'] {
  if (backingKey === null) return image.problem;
  return {
    code: 'CHAIN_TWO_FORMATS',
    message: `${image.path}: an overlay says that it is ${said}, and it looks like ${image.format} with the backing file '${image.backing?.name}'`,
  };
}

/**
 * An image that a link leads to may find its backing file beside the link: there alone, or another one than beside itself, so that nobody knows which
 * of the two it depends on.
 */
async function followName(named: string, key: string, scan: Scan): Promise<void> {
  const known = scan.found.get(key);
  if (known === undefined) return;
  const { path, backing, problem } = known.image;
  if (backing === null || isUrl(named) || posix.dirname(named) === posix.dirname(path)) return;
  // the system goes up from where a linked directory really lies
  const directory = await scan.environment.backend.realPath(posix.dirname(named));
  const there = posix.join(directory, posix.basename(named));
  const beside = await follow({ path, backing }, there, scan);
  if (beside.backingKey === null || beside.backingKey === known.backingKey) return;
  const isMissing = problem?.code === 'CHAIN_MISSING';
  const ambiguous = {
    code: 'CHAIN_AMBIGUOUS',
    message: `${path}: its backing file '${backing.name}' is another one beside '${named}', a link to it`,
  };
  scan.found.set(key, {
    ...known,
    backingKey: isMissing ? beside.backingKey : null,
    image: { ...known.image, problem: isMissing ? beside.problem : ambiguous },
  });
}

async function formatNameAt(path: string, environment: ChainEnvironment): Promise<string | null> {
  await using storage = await environment.backend.open(path, 'read');
  return (await recogniseOwn(storage, environment.formats))?.name ?? null;
}

/**
 * Identity of an image's backing file, as whoever opens the image by the name `named` finds it, and which is queued as well; or why it cannot
 * be had. A reference without a format is followed too: nothing may be read through it, and yet its image depends on that file. One that
 * leads out of the roots is not opened, and may still be another name of a file of the pool.
 */
async function follow(
  { path, backing }: Pick<PoolImage, 'path' | 'backing'>,
  named: string,
  { environment: { backend }, roots, queue }: Scan,
): Promise<{ backingKey: string | null; problem: PoolImage['problem'] }> {
  if (backing === null) return { backingKey: null, problem: null };
  const why = (cause: unknown): PoolImage['problem'] => {
    const { code, message } = problemOf(path, cause);
    return { code, message };
  };
  try {
    const at = await locateBacking(backing, named, roots, backend);
    const { identity } = await backend.facts(at.path);
    if (at.refused === null) queue.push({ ...at, format: backing.format });
    const wrong = at.refused ?? (backing.format === null ? noFormat(backing.name, path) : null);
    return { backingKey: identityKey(identity), problem: wrong === null ? null : why(wrong) };
  } catch (cause) {
    return { backingKey: null, problem: why(cause) };
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

/** Notes a problem; once, however many overlays lead to the file. */
function report(path: string, cause: unknown, { problems }: Scan): void {
  const problem = problemOf(path, cause);
  if (!problems.some((one) => one.path === path && one.code === problem.code))
    problems.push(problem);
}

function problemOf(path: string, cause: unknown): PoolProblem {
  if (!(cause instanceof DownfoldError)) throw cause;
  return { path, code: cause.code, message: cause.message };
}
