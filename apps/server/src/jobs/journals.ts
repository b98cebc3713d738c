import { conflictBetween, type JournalSummary } from '@downfold/commit';
import { ServerError } from '../errors.ts';
import type { Disk } from '../graph/disk.ts';
import type { Graph } from '../graph/graph.ts';
import { journalBeside } from '../graph/superseded.ts';

/** An interrupted job: its journal lies beside the image at `path`. */
export interface Interrupted {
  readonly disk: Disk;
  /** Absolute. */
  readonly path: string;
  readonly journal: JournalSummary;
}

/** An image that was named and is not the disk any more, and its disk: a journal may lie beside it. */
export interface Named {
  readonly path: string;
  readonly disk: Disk;
}

/** Looks for journals beside the layers of disks. */
export class Journals {
  readonly #graph: Graph;
  /** Set once the disks of the command line are there. */
  named: Named | null = null;

  constructor(graph: Graph) {
    this.#graph = graph;
  }

  /** Interrupted jobs; not those that run. */
  async find(): Promise<readonly Interrupted[]> {
    const found: Interrupted[] = [];
    for (const disk of this.#graph.disks) {
      const paths = disk.layers.map(({ facts }) => facts.path);
      if (this.named?.disk === disk) paths.unshift(this.named.path);
      for (const path of paths) {
        const journal = await journalBeside(path, disk.environment);
        if (journal !== null && !isRunning(disk, journal)) found.push({ disk, path, journal });
      }
    }
    return found;
  }

  /** The interrupted job of a file or node. @throws ServerError `SERVER_NODE` */
  async of(name: string): Promise<Interrupted> {
    const all = await this.find();
    const found = all.find(({ path }) => path === name || this.#graph.nameOf(path) === name);
    if (found !== undefined) return found;
    throw new ServerError('SERVER_NODE', `'${name}' has no journal of an interrupted job`, {
      name,
    });
  }
}

function isRunning({ users }: Disk, { claim }: JournalSummary): boolean {
  return [...users].some(({ job }) => job !== null && conflictBetween(job.claim, claim) !== null);
}
