import type { Storage } from '@downfold/storage';
import { byteLength, guestOffset, hostOffset } from '@downfold/units';
import { DEFAULT_IMAGE_LIMITS, type ImageFormat, KIND } from '../../src/index.ts';
import { ImageDecorator } from '../image-decorator.ts';
import { toy } from '../toy-format.ts';
import { CLUSTER } from '../toy-state.ts';
import { formatMutant, type Mutant, mutant } from './mutant.ts';

class FlushesNothing extends ImageDecorator {
  override async flush(): Promise<void> {}
}

class FlushesAlways extends ImageDecorator {
  override async flush(): Promise<void> {
    await this.data.write(hostOffset(await this.data.length()), new Uint8Array(1));
    await this.inner.flush();
  }
}

class FlushWaitsForWrites extends ImageDecorator {
  readonly #writing: Set<Promise<void>> = new Set();

  override async write(...args: Parameters<ImageDecorator['write']>): Promise<void> {
    const writing = this.inner.write(...args);
    this.#writing.add(writing);
    await writing.finally(() => this.#writing.delete(writing));
  }
  override async flush(): Promise<void> {
    await Promise.resolve();
    await Promise.all(this.#writing);
    await this.inner.flush();
  }
}

class WritesMeet extends ImageDecorator {
  /** Reads a cluster, changes it, writes it: two that run at once undo each other. */
  override async write(
    ...[offset, source, { fill }]: Parameters<ImageDecorator['write']>
  ): Promise<void> {
    const start = offset - (offset % CLUSTER);
    const end = Math.min(this.geometry.virtualSize, offset + source.length + CLUSTER);
    const bytes = new Uint8Array(end - start);
    await this.inner.read(guestOffset(start), bytes, fill);
    bytes.set(source, offset - start);
    await this.inner.write(guestOffset(start), bytes, { fill });
  }
}

/** What is let go is emptied at once, whoever looks at it. */
class EmptiesAtOnce extends ImageDecorator {
  override async deallocate(...args: Parameters<ImageDecorator['deallocate']>): Promise<void> {
    const places: number[] = [];
    for await (const { kinds, hosts, length } of this.inner.extents(args[0]))
      for (let index = 0; index < length; index++)
        if (kinds[index] === KIND.data) places.push(hosts[index] as number);
    await this.inner.deallocate(...args);
    for (const place of places) await this.data.write(hostOffset(place), new Uint8Array(CLUSTER));
  }
}

class IgnoresReadOnly extends ImageDecorator {
  override async write(...args: Parameters<ImageDecorator['write']>): Promise<void> {
    if (this.writable) await this.inner.write(...args);
  }
}

class ReadsWhenClosed extends ImageDecorator {
  #closed = false;

  override async read(...args: Parameters<ImageDecorator['read']>): Promise<void> {
    if (this.#closed) args[1].fill(0);
    else await this.inner.read(...args);
  }
  override async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    await this.inner[Symbol.asyncDispose]();
  }
}

class ReadsPastTheEnd extends ImageDecorator {
  override async read(
    ...[offset, target, below, options]: Parameters<ImageDecorator['read']>
  ): Promise<void> {
    const inside = Math.max(0, Math.min(target.length, this.geometry.virtualSize - offset));
    target.fill(0, inside);
    const start = guestOffset(Math.min(offset, this.geometry.virtualSize));
    await this.inner.read(start, target.subarray(0, inside), below, options);
  }
}

class CutsWrites extends ImageDecorator {
  override async write(
    ...[offset, source, options]: Parameters<ImageDecorator['write']>
  ): Promise<void> {
    const inside = Math.max(0, this.geometry.virtualSize - offset);
    if (inside > 0) await this.inner.write(offset, source.subarray(0, inside), options);
  }
}

class IgnoresSignals extends ImageDecorator {
  override writeZeroes(
    ...[range, { fill }]: Parameters<ImageDecorator['writeZeroes']>
  ): Promise<void> {
    return this.inner.writeZeroes(range, { fill });
  }
}

class AbortSpills extends ImageDecorator {
  override async copyFrom(
    ...[pieces, options]: Parameters<ImageDecorator['copyFrom']>
  ): Promise<void> {
    await this.inner.copyFrom(pieces, { fill: options.fill });
    await Promise.resolve();
    if (!options.signal?.aborted) return;
    const last = pieces.at(-1);
    const after = guestOffset((last?.offset ?? 0) + (last?.length ?? 0));
    await this.inner.write(after, new Uint8Array(1), { fill: options.fill });
  }
}

/** The toy format on storage that leaves out a barrier. */
function withoutBarrier(barrier: string): ImageFormat {
  const drop = (storage: Storage): Storage =>
    new Proxy(storage, {
      get: (target, member: keyof Storage) => {
        if (member === 'flush')
          return async (name: string) => (name === barrier ? undefined : target.flush(name));
        const value = target[member];
        return typeof value === 'function' ? value.bind(target) : value;
      },
    });
  return {
    ...toy,
    open: (storage, options) => toy.open(drop(storage), options),
    create: (storage, options) => toy.create(drop(storage), options),
  };
}

/** What must come before what, and what must not happen at all. */
export const orderAndRefusals: readonly Mutant[] = [
  mutant('flush does nothing', 'flush/durable', (image) => new FlushesNothing(image)),
  mutant(
    'flush writes when there is nothing to flush',
    'flush/of-nothing',
    (image) => new FlushesAlways(image),
  ),
  mutant(
    'flush waits for later writes',
    'concurrent/flush-waits-for-nothing-later',
    (image) => new FlushWaitsForWrites(image),
  ),
  mutant(
    'writes to one cluster undo each other',
    'concurrent/one-cluster',
    (image) => new WritesMeet(image),
  ),
  mutant(
    'what is let go is emptied while somebody looks at it',
    'concurrent/place-kept-until-left',
    (image) => new EmptiesAtOnce(image),
  ),
  mutant(
    'what is let go is emptied while somebody looks at it, on an overlay',
    'concurrent/place-kept-until-left/backed',
    (image) => new EmptiesAtOnce(image),
  ),
  mutant(
    'a read-only image takes writes, and drops them',
    'refuse/read-only',
    (image) => new IgnoresReadOnly(image),
  ),
  mutant('a closed image is read', 'refuse/closed', (image) => new ReadsWhenClosed(image)),
  mutant('reads past the end are zeros', 'refuse/outside', (image) => new ReadsPastTheEnd(image)),
  mutant('writes past the end are cut', 'refuse/outside', (image) => new CutsWrites(image)),
  mutant('signals are ignored', 'abort/before', (image) => new IgnoresSignals(image)),
  mutant(
    'an abort changes what is beside the range',
    'abort/during',
    (image) => new AbortSpills(image),
  ),
  ...['toy: data before state', 'toy: state before head', 'toy: head'].map((barrier) => ({
    name: `no barrier "${barrier}"`,
    killedBy: barrier === 'toy: head' ? 'flush/durable' : 'crash/changes',
    format: withoutBarrier(barrier),
  })),
  formatMutant('a limit that nobody asked for', 'extents/far-apart', {
    create: (storage, options) =>
      toy.create(storage, {
        ...options,
        virtualSize: byteLength(Math.min(options.virtualSize, DEFAULT_IMAGE_LIMITS.metadataBytes)),
      }),
  }),
];
