import { viewOf } from '@downfold/chain';
import type { BackingReference, ImageMark } from '@downfold/image';
import { openBackend, type StorageBackend } from '@downfold/storage';
import { type FaultyDriver, faulty } from '@downfold/storage/faults';
import { MemoryDisk, memoryBackendDriver } from '@downfold/storage-memory';
import { byteLength, guestOffset } from '@downfold/units';
import { type CommitStrategy, createEngine, type Engine, type EngineParts } from '../src/index.ts';
import { plain } from './plain-strategy.ts';
import { CLUSTER, toy } from './toy-format.ts';

/** How an image is made. */
export interface Made {
  /** A letter a cluster: `d` data, `z` zeros, `-` nothing. */
  readonly cells: string;
  /** Name of its backing file, as it is written. */
  readonly backing?: string;
}

/** Images of the toy format in memory, and an engine over them. */
export class Workshop {
  readonly disk: MemoryDisk = new MemoryDisk();
  readonly faults: FaultyDriver = faulty(memoryBackendDriver(this.disk));
  readonly backend: StorageBackend = openBackend(this.faults);
  /** The time on the clock of its engines; every look moves it. */
  readonly time = { now: 0 };

  /** Puts images at these paths; backing files first. */
  async make(images: Readonly<Record<string, Made>>): Promise<void> {
    let seed = 0;
    for (const [path, { cells, backing }] of Object.entries(images)) {
      seed += 16;
      this.disk.makeDirectory(path.slice(0, path.lastIndexOf('/')) || '/');
      const storage = await this.backend.create(path, { secret: false });
      const reference: BackingReference | null =
        backing === undefined ? null : { name: backing, format: 'toy' };
      const virtualSize = byteLength(cells.length * CLUSTER);
      await using image = await toy.create(storage, { virtualSize, backing: reference });
      for (const [index, cell] of [...cells].entries()) {
        const offset = guestOffset(index * CLUSTER);
        const bytes = new Uint8Array(CLUSTER).fill(seed + index);
        if (cell === 'd') await image.write(offset, bytes, { fill: null });
        else if (cell === 'z')
          await image.writeZeroes({ offset, length: byteLength(CLUSTER) }, { fill: null });
      }
      await image.flush();
    }
  }

  engine(changes: Partial<EngineParts> = {}): Engine {
    return createEngine({
      backend: this.backend,
      formats: [toy],
      strategies: [plain],
      policy: { roots: ['/'] },
      owner: { host: 'here', bootId: 'b1', pid: 1 },
      isAlive: () => false,
      newJobId: () => 'job-1',
      clock: {
        now: () => this.time.now++,
        sleep: async (milliseconds) => {
          this.time.now += milliseconds;
        },
        date: () => '2026-01-01T00:00:00.000Z',
      },
      ...changes,
    });
  }

  /** The first byte of each cluster of the disk that the last of these images shows, over the others; bottom first. */
  async shown(...paths: readonly string[]): Promise<readonly number[]> {
    const layers = [];
    for (const path of paths) {
      const image = await toy.open(await this.backend.open(path, 'read'), { mode: 'read' });
      layers.push({ image, facts: undefined as never });
    }
    const size = layers.at(-1)?.image.geometry.virtualSize ?? 0;
    const bytes = new Uint8Array(size);
    await viewOf(layers, layers.length - 1)(guestOffset(0), bytes);
    for (const { image } of layers) await image[Symbol.asyncDispose]();
    return Array.from({ length: size / CLUSTER }, (_, index) => bytes[index * CLUSTER] as number);
  }

  /** What an image says of itself. */
  async head(path: string): Promise<{ backing: string | null; mark: ImageMark['state'] | null }> {
    await using image = await toy.open(await this.backend.open(path, 'read'), { mode: 'read' });
    return { backing: image.backing?.name ?? null, mark: image.mark?.state ?? null };
  }

  /** Names of files in a directory. */
  async files(directory = '/'): Promise<readonly string[]> {
    return (await this.backend.list(directory)).map(({ name }) => name).sort();
  }
}

/** A strategy that only looks: `seen` gets the view and request of its last plan. */
export function onlooker(
  operation: CommitStrategy['operation'],
  keepsSiblings = false,
): { readonly strategy: CommitStrategy; seen: Parameters<CommitStrategy['plan']> | null } {
  const looking = {
    seen: null as Parameters<CommitStrategy['plan']> | null,
    strategy: {
      ...plain,
      name: 'look',
      operation,
      keepsSiblings,
      plan: async (...given: Parameters<CommitStrategy['plan']>) => {
        looking.seen = given;
        const [request, view] = given;
        return {
          request,
          images: view.chain,
          chainLength: view.chain.length,
          bytesToCopy: 0,
          writes: [],
          preserves: [],
          invalidates: [],
          relinks: [],
        } as unknown as Awaited<ReturnType<CommitStrategy['plan']>>;
      },
    },
  };
  return looking;
}
