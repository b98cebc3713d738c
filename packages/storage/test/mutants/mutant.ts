import type { Change } from '../support.ts';

/** A deliberately broken backend. The case that it names must find it out. */
export interface Mutant extends Change {
  readonly name: string;
  readonly killedBy: string;
}
