import { markPath } from '@downfold/chain';
import type { JournalRecord } from '@downfold/commit';
import type { ImageMark } from '@downfold/image';
import type { MemoryDisk } from '@downfold/storage-memory';
import { type Case, DATE, JOB, picturesOf, type Subject } from './case.ts';
import { same, type View } from './gallery.ts';
import { OPEN, type Picture } from './picture.ts';

/**
 * What must be true of every disk that a crash can leave, at any moment of a job, of its recovery or of its abort:
 * 1. every image opens, and its metadata has no error but leaks;
 * 2. every image that the plan preserves, or does not know, reads as before;
 * 3. an image that the plan invalidates reads as before, unless the journal on this very disk names it or it is marked;
 * 4. base reads as before, or as top did, or else the journal names it and each sector is one that base, an intermediate or top had
 *    there, or zeros: nothing foreign, ever. `staged`: never a mixture;
 * 5. an image whose content changed no longer claims what Downfold does not know (autoclear bits).
 * Resolves with what is wrong, in words for people; empty: nothing.
 */
export async function brokenPromises(one: Case, disk: MemoryDisk): Promise<readonly string[]> {
  const problems: string[] = [];
  const paths = one.subjects.map(({ path }) => path);
  const pictures = await picturesOf(disk, paths, one.gallery);
  const journal = one.gallery.journal(disk, one.journal);
  if (typeof journal === 'string') return [journal];
  const named = new Set(
    journal?.flatMap((record) => (record.type === 'INVALIDATES' ? record.nodes : [])),
  );
  for (const subject of one.subjects) {
    const { path, role, node } = subject;
    const picture = pictures.get(path);
    if (picture === undefined) {
      if (!mayBeGone(one, subject, journal)) problems.push(`${path} is gone`);
      continue;
    }
    if (picture.broken !== null) problems.push(picture.broken);
    for (const message of picture.corruptions)
      if (!isUndoUnderWay(one, journal, message)) problems.push(`${path}: ${message}`);
    if (subject.initial.claims && picture.claims && !same(picture.sectors, subject.initial.sectors))
      problems.push(`${path}: changed, and still claims what was true before`);
    const mark = markOf(disk, path, picture);
    if (mark === 'unreadable') problems.push(`${path}: its mark is not whole`);
    if (role === 'free') continue;
    const shown = one.gallery.shown(pictures, path);
    const known = (node !== null && named.has(node)) || mark !== null;
    if ('broken' in shown) {
      // one that reads through a file that was deleted is lost with it
      if (role !== 'lost' || !known) problems.push(shown.broken);
    } else if (!isBefore(subject, shown) && !isLegal(one, subject, shown, known))
      problems.push(`${path} (${role}) ${differenceOf(subject, shown)}`);
  }
  return problems;
}

/**
 * While an undo snapshot is being made clusters are counted twice that one copied flag says are counted once, as in QEMU: a leak
 * that a check calls an error, until the publish or `reclaimLeaks`.
 */
function isUndoUnderWay(
  { scenario }: Case,
  journal: readonly JournalRecord[] | null,
  message: string,
): boolean {
  if (!scenario.request.keepUndo || !/a copied flag is wrong for refcount [2-9]/.test(message))
    return false;
  return journal?.some(({ type }) => type === 'PUBLISH') === true;
}

function isBefore({ before }: Subject, shown: View): boolean {
  return (
    shown.id === before.id || (shown.size === before.size && same(shown.sectors, before.sectors))
  );
}

function isLegal(one: Case, { role }: Subject, shown: View, known: boolean): boolean {
  if (role === 'lost') return known;
  if (role !== 'base' || one.after === null) return false;
  if (same(shown.sectors, one.after)) return true;
  if (one.scenario.strategy === 'staged' || !known) return false;
  return shown.sectors.every((content, index) => one.mixture[index]?.has(content) !== false);
}

function differenceOf({ before }: Subject, shown: View): string {
  if (shown.size !== before.size) return `has ${shown.size} bytes, not ${before.size}`;
  const at = shown.sectors.findIndex((content, index) => content !== before.sectors[index]);
  return `reads otherwise in sector ${at}`;
}

/** What is to be deleted goes once the journal says DONE, or is gone itself. */
function mayBeGone(one: Case, subject: Subject, journal: readonly JournalRecord[] | null): boolean {
  if (!isDeleted(one, subject)) return false;
  return journal === null || journal.some(({ type }) => type === 'DONE');
}

/** With `deletes`, images of the chain that lost their meaning go. */
function isDeleted({ scenario, plan }: Case, { role, node }: Subject): boolean {
  const inChain = plan.images.slice(0, plan.chainLength).some((image) => image.node === node);
  return scenario.request.deletes && role === 'lost' && inChain;
}

/** State of the mark of an image on a disk, inside it or beside it; null: it has none. */
export function markOf(
  disk: MemoryDisk,
  path: string,
  picture: Picture,
): ImageMark['state'] | 'unreadable' | null {
  if (picture.mark !== null) return isWhole(picture.mark) ? picture.mark.state : 'unreadable';
  const beside = markPath(path);
  if (!disk.names.has(beside)) return null;
  const file = disk.fileOf(disk.inodeOf(beside));
  const bytes = Buffer.alloc(file.length);
  file.read(0, bytes);
  const text = bytes.toString();
  return text.endsWith('}\n') ? (JSON.parse(text) as ImageMark).state : 'unreadable';
}

/** One of ours, to the last letter: what is torn reads as `invalid`, with another job or date. */
function isWhole({ job, date }: ImageMark): boolean {
  return JOB.test(job) && date === DATE;
}

/**
 * What must be true when a job is over: nothing that `brokenPromises` allows on the way, and all that the plan says.
 * `givenUpBefore`: an earlier try was given up.
 */
export async function brokenEnd(
  one: Case,
  disk: MemoryDisk,
  givenUpBefore = false,
): Promise<readonly string[]> {
  const problems: string[] = [...(await brokenPromises(one, disk))];
  const { plan, subjects, after, gallery } = one;
  const pictures = await picturesOf(
    disk,
    subjects.map(({ path }) => path),
    gallery,
  );
  problems.push(...leftBehind(one, disk), ...leaked(pictures));
  for (const subject of subjects) {
    const picture = pictures.get(subject.path);
    if (picture === undefined) continue;
    // what an earlier try did to images outside the chain of today is not looked at again
    const settled = givenUpBefore && subject.role === 'lost';
    if (!settled && isDeleted(one, subject)) problems.push(`${subject.path}: is not deleted`);
    const mark = markOf(disk, subject.path, picture);
    const wanted = subject.role === 'lost' ? 'invalid' : null;
    if (!settled && mark !== wanted)
      problems.push(`${subject.path}: is marked ${mark}, not ${wanted}`);
    const shown = gallery.shown(pictures, subject.path);
    if (subject.role === 'base' && ('broken' in shown || !same(shown.sectors, after as Int32Array)))
      problems.push(`${subject.path}: does not read as top did`);
    const relink = plan.relinks.find(({ overlay }) => overlay === subject.node);
    if (relink !== undefined && !isLinked(picture, relink.to))
      problems.push(`${subject.path}: is not linked to '${relink.to?.name ?? 'nothing'}'`);
    if (subject.node === plan.request.top && plan.request.emptyTop)
      if (picture.sectors.some((content) => content !== OPEN))
        problems.push(`${subject.path}: is not empty`);
  }
  return problems;
}

/** What must be true when a job was given up: whoever the plan preserves as before, no leak, no journal, marks on what is mixed. */
export async function brokenAbort(
  one: Case,
  disk: MemoryDisk,
  { undone, mixed }: { readonly undone: boolean; readonly mixed: readonly string[] },
): Promise<readonly string[]> {
  const problems: string[] = [...(await brokenPromises(one, disk))];
  const pictures = await picturesOf(
    disk,
    one.subjects.map(({ path }) => path),
    one.gallery,
  );
  if (disk.names.has(one.journal)) problems.push('the journal is still there');
  problems.push(...leaked(pictures));
  if (one.scenario.strategy === 'staged' && !undone)
    problems.push('what was only staged is not undone without a trace');
  if (undone && mixed.length > 0)
    problems.push('says that all is undone, and that images are mixed');
  for (const subject of one.subjects) {
    const picture = pictures.get(subject.path);
    if (picture === undefined) continue;
    const mark = markOf(disk, subject.path, picture);
    if ((mark !== null) !== mixed.includes(subject.path))
      problems.push(`${subject.path}: is marked ${mark}, and the result says otherwise`);
    const shown = one.gallery.shown(pictures, subject.path);
    // without the journal, only a mark tells
    if (
      mark === null &&
      ('broken' in shown || !isBefore(subject, shown)) &&
      subject.role !== 'free'
    )
      problems.push(`${subject.path}: does not read as before, and nothing says so`);
  }
  return problems;
}

function leaked(pictures: ReadonlyMap<string, Picture>): readonly string[] {
  return [...pictures].flatMap(([path, { leaks }]) =>
    leaks > 0 ? [`${path}: ${leaks} leaked clusters`] : [],
  );
}

/** Files that are no images of the case, nor marks beside lost ones. */
function leftBehind({ subjects }: Case, disk: MemoryDisk): readonly string[] {
  const mayBe = new Set(
    subjects.flatMap(({ path, role }) => (role === 'lost' ? [path, markPath(path)] : [path])),
  );
  return [...disk.names.keys()]
    .filter((path) => !mayBe.has(path))
    .map((path) => `${path} is left behind`);
}

function isLinked({ backing }: Picture, to: Picture['backing']): boolean {
  return backing?.name === to?.name && backing?.format === to?.format;
}
