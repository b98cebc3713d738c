import { writeMark } from '@downfold/chain';
import type { Image } from '@downfold/image';
import type { StorageBackend } from '@downfold/storage';
import type { Borrowed } from './borrowed.ts';
import { CommitError } from './errors.ts';
import type { Journal, JournalRecord } from './journal.ts';
import type { ActiveEnding, LiveMirror, LiveSection } from './live.ts';

/** What a pivot works on. */
export interface PivotParts {
  readonly borrowed: Borrowed;
  readonly mirror: LiveMirror;
  readonly journal: Journal;
  readonly backend: StorageBackend;
  /** The active layer, and what takes its place. */
  readonly from: Image;
  readonly to: Image;
  readonly record: Extract<JournalRecord, { type: 'PIVOT' }>;
  /** Base was left as a mixture by a job that was given up; it is none at the end. */
  readonly wasMixed: boolean;
  readonly active: ActiveEnding;
  /** Called before the section; see `RunOptions`. */
  beforeSwitch(): Promise<void>;
}

/**
 * C3 to C5 (facts on crash safety, 2.7), after `mirror.converge`: base is durably like the disk, the user says how it ends, and in one section base takes
 * what is left and becomes the disk. PIVOT is durable before the section ends, so before any change of base is acknowledged.
 */
export async function pivot(parts: PivotParts): Promise<'complete' | 'cancel'> {
  const { borrowed, mirror, to, active } = parts;
  await to.flush();
  active.ready();
  const ending = await unlessBroken(mirror, active.ended());
  await unlessBroken(mirror, parts.beforeSwitch());
  await borrowed.section('pivot', async (section) => {
    assertOnTop(section, parts.from);
    await mirror.finish(section);
    await to.flush();
    if (parts.wasMixed) await writeMark(to, null, parts.backend);
    if (ending === 'complete') await switchOver(section, parts);
  });
  return ending;
}

async function switchOver(section: LiveSection, parts: PivotParts): Promise<void> {
  const { journal, from, to, record } = parts;
  // what can fail of the old one fails before it is too late
  await section.flush();
  try {
    await journal.append(record);
  } catch (cause) {
    await takeBack(section, journal, cause);
    throw cause;
  }
  const under = section.layers.findIndex(({ image }) => image === to);
  await section.replace(section.layers.slice(0, under + 1));
  if (section.layers.at(-1)?.image === from) throw new RangeError('the disk did not pivot');
}

/** PIVOT may be in the journal or not: while a later start could find it, the old active layer must not take a change more. */
async function takeBack(section: LiveSection, journal: Journal, cause: unknown): Promise<void> {
  try {
    await journal.takeBack();
  } catch (second) {
    section.fail(new AggregateError([cause, second], 'it is not known which image is the disk'));
  }
}

function assertOnTop({ layers }: LiveSection, active: Image): void {
  const top = layers.at(-1)?.image;
  if (top !== active)
    throw new CommitError(
      'COMMIT_CHANGED',
      `${active.label}: is not the active layer any more, ${top?.label} is; nothing was switched`,
      { image: active.label },
    );
}

/** What `work` resolves with, unless the mirror's target fails before. */
async function unlessBroken<T>(mirror: LiveMirror, work: Promise<T>): Promise<T> {
  const broken = mirror.broken.then((cause) => {
    throw cause;
  });
  return Promise.race([work, broken]);
}
