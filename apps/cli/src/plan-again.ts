import {
  CommitError,
  type CommitPlan,
  type Engine,
  type PlanOptions,
  type PlanRequest,
} from '@downfold/commit';
import { backend } from './environment.ts';
import { leafOf } from './plan-file.ts';
import type { StoredPlan } from './plan-schema.ts';

/**
 * Plans once more what a stored plan is for, and compares: what resolves is the stored plan, made by the engine, not read from a file.
 * @throws CommitError `COMMIT_CHANGED` that names the first difference
 */
export async function planAgain(
  engine: Engine,
  stored: StoredPlan,
  how: PlanOptions,
): Promise<CommitPlan> {
  const plan = await planOf(engine, stored, how);
  const known = pathsIn(stored);
  const stranger = pathsIn(plan).find((path) => !known.includes(path));
  if (stranger !== undefined)
    throw changed(
      stranger,
      `depends on the chain of ${leafOf(stored).path} and was not there when the plan was made`,
    );
  for (const then of stored.images) {
    const now = plan.images.find(({ path }) => path === then.path);
    if (now === undefined) continue;
    const different = firstDifference(comparable({ ...then, node: now.node }), comparable(now));
    if (different !== null)
      throw changed(then.path, `changed since the plan was made (${told(different)})`);
  }
  const different = firstDifference(comparable(stored), comparable(plan));
  if (different !== null)
    throw changed(leafOf(stored).path, `the plan does not fit, or was edited (${told(different)})`);
  return plan;
}

async function planOf(engine: Engine, stored: StoredPlan, how: PlanOptions): Promise<CommitPlan> {
  try {
    return await engine.plan(requestOf(stored), how);
  } catch (cause) {
    if (!(cause instanceof CommitError) || cause.code === 'COMMIT_INTERRUPTED_BEFORE') throw cause;
    const written = await writtenSince(stored);
    const why = `what was planned cannot be done now: ${cause.message}`;
    if (written === null) throw changed(leafOf(stored).path, why);
    throw changed(written, `was written to since the plan was made; ${why}`);
  }
}

/** Path of the first image that is not as old as the plan says; null: all are. */
async function writtenSince({ images }: StoredPlan): Promise<string | null> {
  for (const { path, modified } of images)
    if ((await backend.facts(path)).modified !== modified) return path;
  return null;
}

/** The request that a plan came from. */
function requestOf(stored: StoredPlan): PlanRequest {
  const { request, images, strategy, pools, unreadable } = stored;
  const at = (node: string | null): StoredPlan['images'][number] | undefined =>
    images.find((image) => image.node === node);
  const base = at(request.base);
  const { path, format } = leafOf(stored);
  return {
    file: path,
    format,
    base: base?.path ?? request.absent?.path,
    baseFormat: base?.format ?? request.absent?.format,
    baseName: request.baseName,
    top: at(request.top)?.path,
    strategy: strategy.name,
    emptyTop: request.emptyTop,
    pools,
    invalidateSiblings: request.siblings === 'invalidate',
    keepSiblings: request.siblings === 'keep',
    // what was not there when it was accepted is not accepted
    ignoreUnreadable: unreadable.length > 0,
    keepUndo: request.keepUndo,
    ...(request.bitmaps === undefined ? {} : { bitmaps: request.bitmaps }),
    unsafe: request.unsafe,
    checkpointBytes: request.checkpointBytes,
  };
}

/** Paths of everyone that a plan knows. */
function pathsIn(plan: Pick<StoredPlan, 'images'> & { readonly dependents?: unknown }): string[] {
  const dependents: readonly unknown[] = Array.isArray(plan.dependents) ? plan.dependents : [];
  return [...plan.images, ...dependents].map((one) => String(isObject(one) ? one['path'] : one));
}

/** Figures for people: they depend on the moment (a sample of reading, what the system has not yet given space to), not on what is done. */
const FIGURES: ReadonlySet<string> = new Set([
  'chosen',
  'estimatedSeconds',
  'shares',
  'allocated',
  'costs',
  'bytesWrittenAtMost',
  'temporaryBytes',
]);

function comparable(all: object): unknown {
  return JSON.parse(
    JSON.stringify(all, (key, value: unknown) => (FIGURES.has(key) ? undefined : value)),
  );
}

/** Where two JSON values first differ. */
interface Difference {
  readonly where: readonly string[];
  readonly was: unknown;
  readonly is: unknown;
}

function firstDifference(
  was: unknown,
  is: unknown,
  where: readonly string[] = [],
): Difference | null {
  if (was === is) return null;
  if (!isObject(was) || !isObject(is)) return { where, was, is };
  for (const key of new Set([...Object.keys(is), ...Object.keys(was)])) {
    const found = firstDifference(was[key], is[key], [...where, key]);
    if (found !== null) return found;
  }
  return null;
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null;
}

function told({ where, was, is }: Difference): string {
  return `${where.join('.')} was ${shown(was)}, is ${shown(is)}`;
}

const LONGEST_SHOWN = 200;

function shown(value: unknown): string {
  return value === undefined ? 'nothing' : JSON.stringify(value).slice(0, LONGEST_SHOWN);
}

function changed(image: string, how: string): CommitError {
  return new CommitError('COMMIT_CHANGED', `${image}: ${how}; plan again`, { image });
}
