import { Draw } from './draw.ts';
import type { Setting } from './setting.ts';

/** Steps of a job that a client may come between, at most. */
const STEPS = 12;

/** Those of the settings whose top can be the active layer of a disk in use, with a client that writes at some time, or not at all. */
export function* inUse(settings: Iterable<Setting>): Generator<Setting, void, undefined> {
  let seed = 0;
  for (const setting of settings) {
    const { images, leaf, top, emptyTop } = setting;
    const hasOverlay = images.some(({ backing }) => backing === top);
    if (leaf !== top || emptyTop || hasOverlay) continue;
    const draw = new Draw(++seed);
    const size = images.find(({ name }) => name === top)?.cells.length ?? 0;
    const client =
      size === 0 || draw.once(4) ? null : { sector: draw.below(size), after: draw.below(STEPS) };
    yield { ...setting, client };
  }
}
