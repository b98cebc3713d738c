import { type MemoryDisk, type Recording, record } from '@downfold/storage-memory';
import { DownfoldError } from '@downfold/units';
import { type Case, engineOn, picturesOf } from './case.ts';
import { same } from './gallery.ts';
import { OPEN } from './picture.ts';
import { brokenAbort, brokenEnd, markOf } from './promises.ts';

/**
 * How a crashed job was ended: gone on with, begun anew since nothing had happened or it had been given up, given up, or it was over
 * already.
 */
type Ending = 'resumed' | 'begun' | 'aborted' | 'over';

/** One recovery: what it did to the disk, and what is wrong afterwards. */
export interface Recovery {
  readonly ending: Ending;
  readonly recording: Recording;
  readonly problems: readonly string[];
}

/** Who does it. */
export interface Recoverer {
  /** Number of the boot: never the one that crashed. */
  readonly boot: number;
  /** The job was given up before, or is being given up. */
  readonly givenUp: boolean;
}

/** Does what a user does after a crash who wants the job done, on `recording`'s disk, and judges the end. */
export async function recover(
  one: Case,
  recording: Recording,
  { boot, givenUp }: Recoverer,
): Promise<Recovery> {
  const engine = engineOn(recording.backend, boot);
  const { file } = one.request;
  const { disk } = recording;
  const records = one.gallery.journal(disk, one.journal) ?? [];
  if (typeof records !== 'string' && records.some(({ type }) => type === 'ABORT'))
    return giveUp(one, recording, { boot, givenUp: true, again: true });
  let ending: Ending = 'over';
  try {
    if ((await engine.journalOf(file)) !== null) {
      ending = 'resumed';
      await engine.resume(file, one.options);
    } else if (disk.names.has(one.journal) || !(await isOver(one, disk))) {
      ending = 'begun';
      await engine.run(await engine.plan(one.request), one.options);
    }
    return { ending, recording, problems: await brokenEnd(one, disk, givenUp) };
  } catch (cause) {
    return { ending, recording, problems: [failure(ending, cause)] };
  }
}

/**
 * Gives the job up and judges that; when it is too late for that, goes on with it. `again`: what was given up is begun anew, on a disk
 * of its own, and judged as well.
 */
export async function giveUp(
  one: Case,
  recording: Recording,
  { boot, givenUp, again }: Recoverer & { readonly again: boolean },
): Promise<Recovery> {
  const engine = engineOn(recording.backend, boot);
  try {
    const result = await engine.abort(one.request.file);
    const problems = await brokenAbort(one, recording.disk, result);
    if (problems.length > 0 || !again) return { ending: 'aborted', recording, problems };
    const anew = await recover(one, record(recording.disk), { boot: boot + 1, givenUp: true });
    return { ending: 'aborted', recording, problems: anew.problems };
  } catch (cause) {
    if (cause instanceof DownfoldError && cause.code === 'COMMIT_PAST_ABORT')
      return recover(one, recording, { boot: boot + 1, givenUp });
    return { ending: 'aborted', recording, problems: [failure('aborted', cause)] };
  }
}

/** Whether nothing is left to do; without a journal only the images can tell. */
async function isOver(one: Case, disk: MemoryDisk): Promise<boolean> {
  const { plan, subjects, gallery, after } = one;
  const pictures = await picturesOf(
    disk,
    subjects.map(({ path }) => path),
    gallery,
  );
  for (const { overlay, to } of plan.relinks) {
    const path = subjects.find(({ node }) => node === overlay)?.path ?? '';
    const picture = pictures.get(path);
    // one that lost its meaning and was deleted at the end; whether it may be gone is judged elsewhere
    if (picture === undefined) continue;
    const { backing } = picture;
    if (backing?.name !== to?.name || backing?.format !== to?.format) return false;
  }
  for (const { path, role, node } of subjects) {
    const picture = pictures.get(path);
    if (picture === undefined) continue;
    if (role === 'base') {
      const shown = gallery.shown(pictures, path);
      if (markOf(disk, path, picture) !== null) return false;
      if ('broken' in shown || !same(shown.sectors, after as Int32Array)) return false;
    }
    if (node === plan.request.top && plan.request.emptyTop)
      if (picture.sectors.some((content) => content !== OPEN)) return false;
  }
  return true;
}

function failure(ending: Ending, cause: unknown): string {
  if (cause instanceof DownfoldError) return `${ending}: ${cause.code}: ${cause.message}`;
  return `${ending}: ${(cause as Error).stack}`;
}
