import type { LiveDisk } from '@downfold/commit';

/** A disk with one member that is another. */
export function changed(disk: LiveDisk, change: Partial<LiveDisk>): LiveDisk {
  return {
    size: disk.size,
    get layers() {
      return disk.layers;
    },
    locks: disk.locks,
    latency: disk.latency,
    drained: (work) => disk.drained(work),
    holding: (range, without, work) => disk.holding(range, without, work),
    flush: () => disk.flush(),
    exemptFromFlush: (image) => disk.exemptFromFlush(image),
    mirror: (target) => disk.mirror(target),
    ...change,
  };
}
