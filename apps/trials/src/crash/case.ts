import {
  type Clock,
  type CommitPlan,
  type CommitStrategy,
  createEngine,
  type Engine,
  type JournalOwner,
  journalPath,
  type PlanRequest,
  type RunOptions,
} from '@downfold/commit';
import { qcow2 } from '@downfold/qcow2';
import { raw } from '@downfold/raw';
import type { StorageBackend } from '@downfold/storage';
import { type MemoryDisk, memoryBackend } from '@downfold/storage-memory';
import { copyDown, depthFirst, preserve, rebase, staged, stream } from '@downfold/strategies';
import { byteLength, DownfoldError } from '@downfold/units';
import { build, pathOf } from './build.ts';
import { Gallery, type View } from './gallery.ts';
import { type Picture, ZEROS } from './picture.ts';
import { type Scenario, SECTOR_BYTES, type StrategyName } from './scenario.ts';

/** What becomes of an image. `free`: the user took the risk (`rebase` with `unsafe`). */
type Role = 'kept' | 'lost' | 'base' | 'free';

/** One image of a case and what must be true of it. */
export interface Subject {
  readonly path: string;
  readonly node: string | null;
  readonly role: Role;
  readonly before: View;
  /** What the file said before. */
  readonly initial: Picture;
}

/** A scenario that is ready to be run, any number of times. */
export interface Case {
  readonly scenario: Scenario;
  readonly plan: CommitPlan;
  readonly request: PlanRequest;
  readonly options: RunOptions;
  /** As it is before the job; never written. */
  readonly disk: MemoryDisk;
  readonly gallery: Gallery;
  readonly subjects: readonly Subject[];
  readonly journal: string;
  /** What base reads as at the end; null where there is no base that is written. */
  readonly after: Int32Array | null;
  /** Contents that each sector of base may have while it is a mixture; null: one that an image's end cuts, which has too many. */
  readonly mixture: readonly (ReadonlySet<number> | null)[];
}

/** What is explored. */
export const STRATEGY: Readonly<Record<StrategyName, CommitStrategy>> = {
  'copy-down': copyDown,
  'depth-first': depthFirst,
  preserve,
  staged,
  stream,
  rebase,
};

/** Job ids of the engines here, and the day that it always is for them. */
export const JOB: RegExp = /^00000000-0000-4000-8000-[0-9]{12}$/;
export const DATE = '2026-01-01T00:00:00.000Z';

/** An engine over a backend; each `boot` is another one of the same machine. */
export function engineOn(
  backend: StorageBackend,
  boot: number,
  strategies: readonly CommitStrategy[] = Object.values(STRATEGY),
  time: Partial<Clock> = {},
): Engine {
  const owner: JournalOwner = { host: 'trial', bootId: `boot-${boot}`, pid: boot };
  return createEngine({
    backend,
    formats: [qcow2, raw],
    strategies,
    owner,
    isAlive: () => false,
    newJobId: () => `00000000-0000-4000-8000-${String(boot).padStart(12, '0')}`,
    clock: { now: () => 0, sleep: async () => {}, date: () => DATE, ...time },
  });
}

/** Builds a scenario's images and plans the job; a text: why the strategy cannot do it. */
export async function prepare(scenario: Scenario): Promise<Case | string> {
  const disk = await build(scenario);
  const request = planRequestOf(scenario);
  let plan: CommitPlan;
  try {
    plan = await engineOn(memoryBackend(disk), 0).plan(request);
  } catch (cause) {
    if (cause instanceof DownfoldError && REFUSALS.has(cause.code)) return cause.message;
    throw cause;
  }
  const paths = scenario.images.map(({ name }) => pathOf(scenario, name));
  const formats = new Map(
    scenario.images.map(({ name, format }) => [pathOf(scenario, name), format]),
  );
  const gallery = new Gallery(formats);
  const pictures = await picturesOf(disk, paths, gallery);
  const subjects = paths.map((path) => subjectOf(path, plan, pictures, gallery));
  return {
    scenario,
    plan,
    request,
    options: {
      verify: scenario.request.verify,
      deleteIntermediates: scenario.request.deletes,
    },
    disk,
    gallery,
    subjects,
    journal: journalPath(pathOf(scenario, scenario.request.file)),
    ...endOf(plan, subjects, gallery),
  };
}

const REFUSALS: ReadonlySet<string> = new Set(['COMMIT_UNSUPPORTED', 'COMMIT_BAD_REQUEST']);

/** Pictures of the images that are there, by path. */
export async function picturesOf(
  disk: MemoryDisk,
  paths: Iterable<string>,
  gallery: Gallery,
): Promise<ReadonlyMap<string, Picture>> {
  const pictures = new Map<string, Picture>();
  for (const path of paths) {
    const found = gallery.picture(disk, path);
    const picture = found instanceof Promise ? await found : found;
    if (picture !== null) pictures.set(path, picture);
  }
  return pictures;
}

function planRequestOf(scenario: Scenario): PlanRequest {
  const { strategy, request, images } = scenario;
  const { base, top, emptyTop, siblings, keepUndo, unsafe } = request;
  const format = (name: string): string =>
    images.find((image) => image.name === name)?.format ?? '';
  const file = pathOf(scenario, request.file);
  const common = {
    file,
    format: format(request.file),
    strategy,
    base: base === null ? undefined : pathOf(scenario, base),
    checkpointBytes: byteLength(request.checkpointBytes),
  };
  if (strategy === 'stream') return common;
  if (strategy === 'rebase')
    return { ...common, unsafe, baseFormat: base === null ? undefined : format(base) };
  return {
    ...common,
    top: pathOf(scenario, top),
    emptyTop,
    keepUndo,
    keepSiblings: siblings === 'keep',
    invalidateSiblings: siblings === 'invalidate',
  };
}

function subjectOf(
  path: string,
  plan: CommitPlan,
  pictures: ReadonlyMap<string, Picture>,
  gallery: Gallery,
): Subject {
  const node = plan.images.find((image) => image.path === path)?.node ?? null;
  const before = gallery.shown(pictures, path);
  const initial = pictures.get(path) as Picture;
  if ('broken' in before) throw new Error(`built wrong: ${before.broken}`);
  if (initial.corruptions.length > 0 || initial.leaks > 0)
    throw new Error(`built wrong: ${path}: ${initial.leaks} leaks, ${initial.corruptions.join()}`);
  return { path, node, role: roleOf(node, plan), before, initial };
}

/** Who is neither to be preserved nor lost is not to be touched. */
function roleOf(node: string | null, plan: CommitPlan): Role {
  if (plan.invalidates.some((one) => one.node === node)) return 'lost';
  if (plan.request.operation === 'commit' && node === plan.request.base) return 'base';
  if (plan.request.unsafe && node === plan.request.top) return 'free';
  return 'kept';
}

/** Base at the end reads as top did; past top's end: zeros where the plan says so, else as it was. */
function endOf(
  { request, zeroTail, images, chainLength }: CommitPlan,
  subjects: readonly Subject[],
  gallery: Gallery,
): Pick<Case, 'after' | 'mixture'> {
  const base = subjects.find(({ role }) => role === 'base');
  if (base === undefined) return { after: null, mixture: [] };
  const viewOf = (node: string | null): View =>
    (subjects.find((one) => one.node === node) as Subject).before;
  const top = viewOf(request.top);
  const size = Math.max(top.size, base.before.size);
  const zeros = zeroTail === null ? 0 : zeroTail.offset + zeroTail.length;
  const blank = {
    ...base.before,
    size: zeros,
    sectors: new Int32Array(base.before.sectors.length),
  };
  const past = gallery.reach(blank, size, gallery.reach(base.before, size));
  const after = gallery.reach(top, size, past);
  const chain = images.slice(0, chainLength).map(({ node }) => node);
  const between = chain.slice(
    chain.indexOf(request.base as string),
    chain.indexOf(request.top) + 1,
  );
  const views = between.map(viewOf);
  const reached = views.map((view) => gallery.reach(view, size));
  const cut = views.filter((view) => view.size % SECTOR_BYTES > 0);
  const odd = new Set(cut.map((view) => Math.floor(view.size / SECTOR_BYTES)));
  const mixture = Array.from(after, (content, index) =>
    odd.has(index)
      ? null
      : new Set([content, ZEROS, ...reached.map((sectors) => sectors[index] as number)]),
  );
  return { after, mixture };
}
