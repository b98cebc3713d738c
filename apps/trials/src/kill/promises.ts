import { basename } from 'node:path';
import { type JournalRecord, journalPath } from '@downfold/commit';
import { markOf } from '../downfold.ts';
import { checkByQemu, infoByQemu, sameByQemu } from '../tools/qemu.ts';
import { type Fate, fateOf, type KillJob, linkedToBase } from './jobs.ts';
import { fileName, imageOf, type Pool } from './pool.ts';

/** Path of the journal of every job here: active is the leaf. */
export function journalOf(pool: Pool): string {
  return journalPath(pool.path('active'));
}

/** Whether active has the backing file that it gets at the end. */
export async function isRelinked(pool: Pool): Promise<boolean> {
  const info = await infoByQemu(pool.path('active'), 'qcow2');
  return info['backing-filename'] === fileName(imageOf(pool.spec, 'base'));
}

/**
 * What is wrong right after the kill of a job whose journal has `records`: whatever the journal does not name as having lost its
 * meaning reads as before, and it names nobody that the promise keeps. `staged` changes base at once or not at all.
 */
export async function brokenByKill(
  job: KillJob,
  pool: Pool,
  records: readonly JournalRecord[],
): Promise<readonly string[]> {
  const named = namedBy(records);
  const wrong = pool.spec.images
    .filter(({ name }) => named.has(name) && fateOf(job, pool.spec, name) === 'kept')
    .map(({ name }) => `${name} is to be kept, and the journal names it`);
  const found = await eachImage(pool, async (name) => {
    if (named.has(name)) return [];
    const allowed = job.name === 'staged' && name === 'base' ? ['base', 'top'] : [name];
    return reads(pool, name, allowed);
  });
  return [...wrong, ...found];
}

/** Names of the images that INVALIDATES records name. */
function namedBy(records: readonly JournalRecord[]): ReadonlySet<string> {
  const [intent] = records;
  if (intent?.type !== 'INTENT') return new Set();
  const names = new Map(
    intent.plan.images.map(({ node, path }) => [node, basename(path).split('.')[0] as string]),
  );
  return new Set(
    records.flatMap((record) =>
      record.type === 'INVALIDATES' ? record.nodes.map((node) => names.get(node) as string) : [],
    ),
  );
}

/**
 * What is wrong when the job is said to be done. `again`: it was given up before and begun again; what the first one marked as mixed stays
 * so when the second finds nothing to do.
 */
export async function brokenEnd(
  job: KillJob,
  pool: Pool,
  again = false,
): Promise<readonly string[]> {
  const lost = again ? ['invalid', 'mixed'] : ['invalid'];
  const found = await eachImage(pool, async (name) => {
    const fate = fateOf(job, pool.spec, name);
    if (fate === 'lost') return marked(pool, name, lost);
    const content = fate === 'base' ? 'top' : name;
    return [...(await reads(pool, name, [content])), ...(await marked(pool, name, [null]))];
  });
  return [
    ...found,
    ...(await isWhole(pool)),
    ...(await links(job, pool)),
    ...(await left(job, pool)),
  ];
}

/** What is wrong after an abort that says which images it left `mixed`, by path. */
export async function brokenAbort(
  job: KillJob,
  pool: Pool,
  { undone, mixed }: { readonly undone: boolean; readonly mixed: readonly string[] },
): Promise<readonly string[]> {
  const wrong: string[] = [];
  if (undone !== (mixed.length === 0)) wrong.push('abort contradicts itself');
  if (!undone && job.name === 'staged') wrong.push('staged was not undone');
  const found = await eachImage(pool, async (name) => {
    const fate: Fate = fateOf(job, pool.spec, name);
    const isMixed = mixed.some((path) => basename(path) === basename(pool.path(name)));
    if (isMixed) {
      if (fate === 'kept') return [`${name} is to be kept, and abort left it mixed`];
      // invalid: the job had dropped it already, for good
      return marked(pool, name, ['mixed', 'invalid']);
    }
    return [...(await reads(pool, name, [name])), ...(await marked(pool, name, [null]))];
  });
  return [...wrong, ...found, ...(await isWhole(pool)), ...(await left(job, pool))];
}

async function eachImage(
  pool: Pool,
  look: (name: string) => Promise<readonly string[]>,
): Promise<readonly string[]> {
  return (await Promise.all(pool.spec.images.map(({ name }) => look(name)))).flat();
}

/** An image reads as one of these did before. */
async function reads(
  pool: Pool,
  name: string,
  allowed: readonly string[],
): Promise<readonly string[]> {
  const { format } = imageOf(pool.spec, name);
  let difference = '';
  for (const one of allowed) {
    difference = await sameByQemu(pool.path(name), format, pool.before(one));
    if (difference === '') return [];
  }
  return [`${name} does not read as ${allowed.join(' or ')}: ${difference}`];
}

async function marked(
  pool: Pool,
  name: string,
  allowed: readonly (string | null)[],
): Promise<readonly string[]> {
  const mark = await markOf(pool.path(name), imageOf(pool.spec, name).format);
  return allowed.includes(mark) ? [] : [`${name} is marked ${mark}, not ${allowed.join()}`];
}

/** Neither errors nor leaks. */
async function isWhole(pool: Pool): Promise<readonly string[]> {
  return eachImage(pool, async (name) => {
    if (imageOf(pool.spec, name).format !== 'qcow2') return [];
    const fault = await checkByQemu(pool.path(name));
    return fault === '' ? [] : [`${name}: ${fault}`];
  });
}

async function links(job: KillJob, pool: Pool): Promise<readonly string[]> {
  const base = imageOf(pool.spec, 'base');
  const wrong: string[] = [];
  for (const name of linkedToBase(job, pool.spec)) {
    const info = await infoByQemu(pool.path(name), 'qcow2');
    const [file, format] = [info['backing-filename'], info['backing-filename-format']];
    if (file !== fileName(base) || format !== base.format)
      wrong.push(`${name} has backing file ${file} of format ${format}`);
  }
  return wrong;
}

/** Nothing is left but marks beside images that may be marked and have no place for one. */
async function left(job: KillJob, pool: Pool): Promise<readonly string[]> {
  const mayBe = new Set(
    pool.spec.images
      .filter(({ name }) => fateOf(job, pool.spec, name) !== 'kept')
      .map((image) => `${fileName(image)}.downfold-mark`),
  );
  return (await pool.leftovers())
    .filter((name) => !mayBe.has(name))
    .map((name) => `${name} is left behind`);
}
