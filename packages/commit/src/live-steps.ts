import type { ChainLayer } from '@downfold/chain';
import type { BackingReference, CowSource, Image } from '@downfold/image';
import { type GuestRange, guestOffset, rangeBetween } from '@downfold/units';
import type { Borrowed } from './borrowed.ts';
import { CommitError } from './errors.ts';
import { isLinked } from './layers.ts';

/** A reference to be switched under a disk in use. */
export interface LiveRelink {
  readonly overlay: Image;
  /** The image under the disk when it is asked for; null: no backing file. */
  readonly backing: () => Image | null;
  readonly reference: BackingReference | null;
  /** What the overlay reads through to until now; null: nothing. */
  readonly below: CowSource | null;
  /** Bytes of the overlay when the job was planned. */
  readonly plannedSize: number;
}

/**
 * P8 under a disk in use, in one section: the reference, durably, and the disk's layers without those that are not between the two any more. What it
 * shows does not change.
 */
export async function relinkBeneath(borrowed: Borrowed, relink: LiveRelink): Promise<void> {
  // most of it is over before requests are held
  await borrowed.disk.flush();
  await borrowed.section('relink', async (section) => {
    const layers = without(section.layers, relink);
    if (!isLinked(relink.overlay, relink.reference)) {
      await hideGrown(relink);
      await section.flush();
      await relink.overlay.setBacking(relink.reference);
    }
    if (layers.length < section.layers.length) await section.replace(layers);
  });
}

/** The layers now, which may be more on top than when the job began, without those between an overlay and what it is to read through to. */
function without(
  layers: readonly ChainLayer[],
  relink: Pick<LiveRelink, 'overlay' | 'backing'>,
): readonly ChainLayer[] {
  const { overlay } = relink;
  const backing = relink.backing();
  const at = layers.findIndex(({ image }) => image === overlay);
  const under = backing === null ? -1 : layers.findIndex(({ image }) => image === backing);
  if (at < 0 || (backing !== null && under < 0) || under >= at)
    throw new CommitError(
      'COMMIT_CHANGED',
      `${overlay.label}: does not lie over ${backing?.label ?? 'nothing'} in the disk any more; nothing was relinked`,
      { image: overlay.label },
    );
  return [...layers.slice(0, under + 1), ...layers.slice(at)];
}

/** What a disk grew by since the plan is past the end of a short top, and must not show what base holds there: facts, 2.2, S-2. */
async function hideGrown({ overlay, backing, below, plannedSize }: LiveRelink): Promise<void> {
  const end = Math.min(overlay.geometry.virtualSize, backing()?.geometry.virtualSize ?? 0);
  if (end <= plannedSize) return;
  for (const range of await unallocatedIn(overlay, rangeBetween(guestOffset(plannedSize), end)))
    await overlay.writeZeroes(range, { fill: below });
}

/** The parts of a range that an image leaves to what lies below. */
async function unallocatedIn(image: Image, range: GuestRange): Promise<readonly GuestRange[]> {
  const open: GuestRange[] = [];
  for await (const batch of image.extents(range))
    for (const { offset, length, status } of batch)
      if (status === 'unallocated') open.push({ offset, length });
  return open;
}

/**
 * Runs `work` for what of a range an image of the disk still leaves to those below: the guest writes to it too, and may have been there first. No
 * request changes the range meanwhile.
 */
export async function whereStillOpen(
  borrowed: Borrowed,
  image: Image,
  range: GuestRange,
  work: (part: GuestRange) => Promise<void>,
): Promise<void> {
  await borrowed.holding(range, 'changes', async () => {
    for (const part of await unallocatedIn(image, range)) await work(part);
  });
}
