import type { NodeId } from '@downfold/chain';
import { advance } from '@downfold/units';
import type { Layers } from './layers.ts';
import type { CommitPlan } from './plan.ts';
import type { Clock } from './progress.ts';
import type { ChainView } from './strategy.ts';
import { wholeOf } from './view.ts';

/** The sample ends after so many bytes or milliseconds. */
const SAMPLE_BYTES = 16 << 20;
const SAMPLE_MILLISECONDS = 100;
const PIECE_BYTES = 1 << 20;
/** Writing and flushing what was read takes about so many times as long as reading it. */
const WRITE_FACTOR = 2;
/** Start, checks and the end of a job. */
const FIXED_SECONDS = 0.1;

/** How long a job may take, from reading a little of what it will copy; null: there is nothing to copy. Rough: one digit counts. */
export async function estimateSeconds(
  plan: CommitPlan,
  view: ChainView,
  layers: Pick<Layers, 'get'>,
  clock: Clock,
): Promise<number | null> {
  const { top, base, operation } = plan.request;
  if (plan.bytesToCopy === 0) return null;
  const upper = operation === 'commit' ? top : (view.links[top] as NodeId);
  const range = wholeOf(layers.get(upper).facts);
  const lower = operation === 'rebase' ? null : base;
  const started = clock.now();
  let bytes = 0;
  for await (const batch of view.extentsAbove({ base: lower, top: upper }, range))
    for (const extent of batch) {
      if (extent.owner === null || extent.status === 'zero') continue;
      const { image } = layers.get(extent.owner);
      for (let done = 0; done < extent.length; done += PIECE_BYTES) {
        const buffer = new Uint8Array(Math.min(PIECE_BYTES, extent.length - done));
        await image.read(advance(extent.offset, done), buffer, null);
        bytes += buffer.length;
        const elapsed = clock.now() - started;
        if (bytes >= SAMPLE_BYTES || elapsed >= SAMPLE_MILLISECONDS)
          return secondsFor(plan.bytesToCopy, bytes, elapsed);
      }
    }
  return bytes === 0 ? null : secondsFor(plan.bytesToCopy, bytes, clock.now() - started);
}

function secondsFor(total: number, bytes: number, milliseconds: number): number {
  const seconds = ((total / bytes) * milliseconds * (1 + WRITE_FACTOR)) / 1000 + FIXED_SECONDS;
  return Math.round(seconds * 10) / 10;
}
