import type { Draw } from '../tools/draw.ts';
import type { Layer } from './life.ts';

/** The strategies of `block-commit` that leave the active layer alone. */
export const COMMITS = ['copy-down', 'depth-first', 'preserve', 'staged'] as const;
/** What folds layers. */
export type Kind = (typeof COMMITS)[number] | 'stream' | 'active';

/** A command of QMP that starts a job. */
export interface JobCommand {
  readonly name: 'block-commit' | 'block-stream';
  readonly args: Readonly<Record<string, unknown>>;
}

/** Name of the job that is under way. */
export const JOB = 'job';

const MIB = 1 << 20;
/** Bytes a second: as fast as it can, or so that it takes a moment. */
export const SPEEDS: readonly [number, ...number[]] = [0, 8 * MIB, 32 * MIB];

/** Layers that a disk must have, so that there is something to choose. */
export const LEAST_LAYERS = 4;

/** Whether a snapshot may be taken meanwhile: a job that reads or writes the active layer needs it to stay. */
export function letsSnapshots(kind: Kind): boolean {
  return kind !== 'stream' && kind !== 'active';
}

/** A job of a kind on a disk of so many layers. @param speed bytes a second; 0: as fast as it can */
export function jobOf(kind: Kind, layers: readonly Layer[], speed: number, from: Draw): JobCommand {
  const active = layers.length - 1;
  const node = (index: number): string => (layers[index] as Layer).node;
  const common = { 'job-id': JOB, device: node(active), speed };
  if (kind === 'stream') {
    const base = from.integer(active - 1);
    const isWhole = from.chance(0.3);
    return {
      name: 'block-stream',
      args: { ...common, ...(isWhole ? {} : { 'base-node': node(base) }) },
    };
  }
  if (kind === 'active') return { name: 'block-commit', args: { ...common } };
  const base = from.integer(active - 1);
  const top = from.between(base + 1, active - 1);
  return {
    name: 'block-commit',
    args: { ...common, 'base-node': node(base), 'top-node': node(top), 'x-strategy': kind },
  };
}

/** The kinds in a random order; the one that leaves a single layer comes last. */
export function inTurn(from: Draw): readonly Kind[] {
  const left: Kind[] = [...COMMITS, 'stream'];
  const order: Kind[] = [];
  while (left.length > 0) order.push(...left.splice(from.integer(left.length), 1));
  return [...order, 'active'];
}
