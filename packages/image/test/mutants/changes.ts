import type { Storage } from '@downfold/storage';
import {
  alignDown,
  alignUp,
  byteLength,
  type GuestRange,
  guestOffset,
  hostOffset,
  rangeEnd,
} from '@downfold/units';
import type { CowSource, ImageWriteOptions } from '../../src/index.ts';
import { ImageDecorator } from '../image-decorator.ts';
import { CLUSTER } from '../toy-state.ts';
import { type Mutant, mutant } from './mutant.ts';

type Args<Name extends 'write' | 'copyFrom' | 'writeZeroes' | 'deallocate' | 'resize'> = Parameters<
  ImageDecorator[Name]
>;

/** Images whose `write` gets another `fill`. */
class OtherFill extends ImageDecorator {
  readonly #change: (fill: CowSource, size: number) => CowSource;

  constructor(
    inner: ImageDecorator['inner'],
    change: (fill: CowSource, size: number) => CowSource,
  ) {
    super(inner);
    this.#change = change;
  }

  override write(...[offset, source, options]: Args<'write'>): Promise<void> {
    return this.inner.write(offset, source, this.#other(options));
  }

  #other({ fill, ...options }: ImageWriteOptions): ImageWriteOptions {
    const size = this.geometry.virtualSize;
    return { ...options, fill: fill === null ? null : this.#change(fill, size) };
  }
}

class FillForWholeClusters extends ImageDecorator {
  override async write(...[offset, source, options]: Args<'write'>): Promise<void> {
    await options.fill?.(guestOffset(alignDown(offset, CLUSTER)), new Uint8Array(CLUSTER));
    await this.inner.write(offset, source, options);
  }
}

class LastClusterLost extends ImageDecorator {
  override async write(...[offset, source, options]: Args<'write'>): Promise<void> {
    const whole = alignDown(this.geometry.virtualSize, CLUSTER);
    const kept = source.subarray(0, Math.max(0, whole - offset));
    if (kept.length > 0) await this.inner.write(offset, kept, options);
  }
}

class KeepsTheBuffer extends ImageDecorator {
  readonly #waiting: Args<'write'>[] = [];

  override async write(...args: Args<'write'>): Promise<void> {
    this.#waiting.push(args);
  }
  override async flush(): Promise<void> {
    for (const args of this.#waiting.splice(0)) await this.inner.write(...args);
    await this.inner.flush();
  }
}

class WritesNothingToo extends ImageDecorator {
  override async write(...[offset, source, options]: Args<'write'>): Promise<void> {
    if (source.length === 0) await this.data.write(hostOffset(4096), new Uint8Array(1));
    await this.inner.write(offset, source, options);
  }
}

class CopiesFromSectors extends ImageDecorator {
  override copyFrom(...[pieces, options]: Args<'copyFrom'>): Promise<void> {
    return this.inner.copyFrom(
      pieces.map((piece) => ({ ...piece, from: alignDown(piece.from, 512) })),
      options,
    );
  }
}

class CopiesToTheEndOfSource extends ImageDecorator {
  override async copyFrom(...[pieces, options]: Args<'copyFrom'>): Promise<void> {
    for (const piece of pieces) {
      const inside = await lengthFrom(piece.source, piece.from);
      const length = byteLength(Math.min(piece.length, inside));
      await this.inner.copyFrom([{ ...piece, length }], options);
    }
  }
}

class CopiesOnlyTheFirstPiece extends ImageDecorator {
  override copyFrom(...[pieces, options]: Args<'copyFrom'>): Promise<void> {
    return this.inner.copyFrom(pieces.slice(0, 1), options);
  }
}

/** As a format would that gives each piece of a cluster a place of its own. */
class ForgetsEarlierPiecesOfACluster extends ImageDecorator {
  override async copyFrom(...[pieces, options]: Args<'copyFrom'>): Promise<void> {
    for (const [index, piece] of pieces.entries()) {
      const cluster = alignDown(piece.offset, CLUSTER);
      const earlier = pieces
        .slice(0, index)
        .some(({ offset }) => alignDown(offset, CLUSTER) === cluster);
      const length = byteLength(Math.min(CLUSTER, this.geometry.virtualSize - cluster));
      if (earlier) await this.inner.writeZeroes({ offset: cluster, length }, options);
      await this.inner.copyFrom([piece], options);
    }
  }
}

class ZeroesWholeClustersOnly extends ImageDecorator {
  override writeZeroes(...[range, options]: Args<'writeZeroes'>): Promise<void> {
    return this.inner.writeZeroes(within(range), options);
  }
}

class ZeroesByDeallocating extends ImageDecorator {
  override async writeZeroes(...[range, options]: Args<'writeZeroes'>): Promise<void> {
    await this.inner.writeZeroes(range, options);
    await this.inner.deallocate(range, options);
  }
}

class DeallocatesByZeroing extends ImageDecorator {
  override async deallocate(...[range, options]: Args<'deallocate'>): Promise<void> {
    const whole = within(range);
    await this.inner.writeZeroes(whole, { ...options, fill: null });
  }
}

class DeallocatesOutward extends ImageDecorator {
  override deallocate(...[range, options]: Args<'deallocate'>): Promise<void> {
    const from = alignDown(range.offset, CLUSTER);
    const to = Math.min(this.geometry.virtualSize, alignUp(rangeEnd(range) as number, CLUSTER));
    return this.inner.deallocate({ offset: from, length: byteLength(to - from) }, options);
  }
}

class DeallocatesNoCutUnit extends ImageDecorator {
  override deallocate(...[range, options]: Args<'deallocate'>): Promise<void> {
    return this.inner.deallocate(within(range), options);
  }
}

class GrowsWithoutZeros extends ImageDecorator {
  override resize(...[size, options]: Args<'resize'>): Promise<void> {
    return this.inner.resize(size, { ...options, fill: null });
  }
}

class GrowsUnflushed extends ImageDecorator {
  #size: number | null = null;

  override get geometry(): ImageDecorator['inner']['geometry'] {
    const { virtualSize, ...geometry } = this.inner.geometry;
    return { ...geometry, virtualSize: byteLength(this.#size ?? virtualSize) };
  }
  override async resize(...[size]: Args<'resize'>): Promise<void> {
    this.#size = size;
  }
}

class ShrinksSilently extends ImageDecorator {
  override async resize(...[size, options]: Args<'resize'>): Promise<void> {
    if (size >= this.geometry.virtualSize) await this.inner.resize(size, options);
  }
}

/** What changes guest bytes. */
export const changes: readonly Mutant[] = [
  mutant(
    '`fill` is not called',
    'write/odd-offsets/backed',
    (image) => new OtherFill(image, () => async (_, target) => void target.fill(0)),
  ),
  mutant(
    '`fill` is called for whole clusters',
    'write/whole-clusters/backed',
    (image) => new FillForWholeClusters(image),
  ),
  mutant(
    '`fill` is called past the end',
    'write/part-of-last-cluster/backed',
    (image) =>
      new OtherFill(image, (fill, size) => async (offset, target) => {
        const past = offset + target.length === size ? new Uint8Array(target.length + 512) : target;
        await fill(offset, past);
        if (past !== target) target.set(past.subarray(0, target.length));
      }),
  ),
  mutant(
    '`fill` is called with another offset',
    'write/across-clusters/backed',
    (image) =>
      new OtherFill(
        image,
        (fill) => (offset, target) => fill(guestOffset(alignDown(offset, CLUSTER)), target),
      ),
  ),
  mutant('a cut last cluster is lost', 'write/last-cluster', (image) => new LastClusterLost(image)),
  mutant(
    'the source is kept until the flush',
    'write/source-is-free-afterwards',
    (image) => new KeepsTheBuffer(image),
  ),
  mutant(
    'writing nothing changes something',
    'write/nothing',
    (image) => new WritesNothingToo(image),
  ),
  mutant(
    'copies start at a sector of the source',
    'copy/odd-offsets',
    (image) => new CopiesFromSectors(image),
  ),
  mutant(
    'copies stop at the end of the source',
    'copy/past-the-end-of-the-source',
    (image) => new CopiesToTheEndOfSource(image),
  ),
  mutant(
    'of many pieces only the first is copied',
    'copy/many-pieces',
    (image) => new CopiesOnlyTheFirstPiece(image),
  ),
  mutant(
    'a piece takes what another one wrote to its cluster',
    'copy/many-pieces-of-a-cluster',
    (image) => new ForgetsEarlierPiecesOfACluster(image),
  ),
  mutant(
    'only whole clusters are zeroed',
    'zero/odd-offsets',
    (image) => new ZeroesWholeClustersOnly(image),
  ),
  mutant(
    'zeroing deallocates',
    'zero/whole-disk/backed',
    (image) => new ZeroesByDeallocating(image),
  ),
  mutant(
    'deallocation writes zeros',
    'deallocate/whole-units/backed',
    (image) => new DeallocatesByZeroing(image),
  ),
  mutant(
    'deallocation takes parts of units too',
    'deallocate/parts-stay',
    (image) => new DeallocatesOutward(image),
  ),
  mutant(
    'a cut last unit is not deallocated',
    'deallocate/last-unit/backed',
    (image) => new DeallocatesNoCutUnit(image),
  ),
  mutant(
    'resize shows old bytes',
    'resize/untouched/backed',
    (image) => new GrowsWithoutZeros(image),
  ),
  mutant('resize is not durable', 'resize/durable', (image) => new GrowsUnflushed(image)),
  mutant(
    'shrinking is not refused',
    'resize/shrink-is-refused',
    (image) => new ShrinksSilently(image),
  ),
];

/** The clusters that lie wholly in a range. */
function within(range: GuestRange): GuestRange {
  const from = alignUp(range.offset, CLUSTER);
  const to = alignDown(rangeEnd(range), CLUSTER);
  return { offset: from, length: byteLength(Math.max(0, to - from)) };
}

async function lengthFrom(source: Storage, from: number): Promise<number> {
  return Math.max(0, (await source.length()) - from);
}
