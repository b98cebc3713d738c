import type { OperationOptions } from '@downfold/storage';
import {
  byteLength,
  type GuestOffset,
  type GuestRange,
  guestOffset,
  hostOffset,
  rangeEnd,
} from '@downfold/units';
import {
  type CowSource,
  type Extent,
  type ExtentBatch,
  ExtentList,
  type ImageGeometry,
} from '../../src/index.ts';
import { ImageDecorator } from '../image-decorator.ts';
import { type Mutant, mutant } from './mutant.ts';

type Batch = readonly Extent[];
type ReadArgs = Parameters<ImageDecorator['read']>;

/** Images whose batches of extents are not what they should be. */
function withBatches(change: (batch: Batch) => Batch): typeof ImageDecorator {
  return class extends ImageDecorator {
    override async *extents(
      range: GuestRange,
      options?: OperationOptions,
    ): AsyncGenerator<ExtentBatch, void, undefined> {
      for await (const batch of this.inner.extents(range, options))
        yield ExtentList.of(change([...batch]));
    }
  };
}

function extentsMutant(name: string, killedBy: string, change: (batch: Batch) => Batch): Mutant {
  const Broken = withBatches(change);
  return mutant(name, killedBy, (image) => new Broken(image));
}

class ZeroIsUnallocated extends withBatches((batch) =>
  batch.map(({ offset, length, ...rest }) =>
    rest.status === 'zero'
      ? { offset, length, status: 'unallocated' }
      : { offset, length, ...rest },
  ),
) {
  override async read(
    offset: GuestOffset,
    target: Uint8Array,
    below: CowSource | null,
  ): Promise<void> {
    await this.inner.read(offset, target, below);
    const range = { offset, length: byteLength(target.length) };
    for await (const batch of this.inner.extents(range))
      for (const extent of batch)
        if (extent.status === 'zero')
          await below?.(
            extent.offset,
            target.subarray(extent.offset - offset, rangeEnd(extent) - offset),
          );
  }
}

class BelowForEverything extends ImageDecorator {
  override async read(...[offset, target, below, options]: ReadArgs): Promise<void> {
    await below?.(offset, new Uint8Array(target.length));
    await this.inner.read(offset, target, below, options);
  }
}

class ZerosAreNotFilled extends ImageDecorator {
  override async read(...[offset, target, below, options]: ReadArgs): Promise<void> {
    const fresh = new Uint8Array(target.length);
    await this.inner.read(offset, fresh, below, options);
    fresh.forEach((byte, index) => {
      if (byte !== 0) target[index] = byte;
    });
  }
}

class SpillsOver extends ImageDecorator {
  override async read(...[offset, target, below, options]: ReadArgs): Promise<void> {
    await this.inner.read(offset, target, below, options);
    const end = target.byteOffset + target.byteLength;
    new Uint8Array(target.buffer, end).fill(0, 0, 1);
  }
}

class ReadingWrites extends ImageDecorator {
  override async read(...args: ReadArgs): Promise<void> {
    await this.inner.read(...args);
    const first = new Uint8Array(1);
    await this.data.read(hostOffset(0), first);
    await this.data.write(hostOffset(0), first);
  }
}

class CoarseUnits extends ImageDecorator {
  override get geometry(): ImageGeometry {
    return { ...this.inner.geometry, allocationGranularity: byteLength(3 * 256) };
  }
}

/** What is read, and what is said to be where. */
export const extentsAndReads: readonly Mutant[] = [
  mutant(
    'zero is taken for unallocated',
    'zero/hides-the-backing-file',
    (image) => new ZeroIsUnallocated(image),
  ),
  extentsMutant('extents with a gap', 'extents/any-range', (batch) =>
    batch.filter((_, index) => index !== 1),
  ),
  extentsMutant('extents out of order', 'extents/any-range', (batch) => batch.toReversed()),
  extentsMutant('an extent of no bytes', 'read/new-image', (batch) =>
    batch.flatMap((extent) => [{ ...extent, length: byteLength(0) }, extent]),
  ),
  extentsMutant('neighbours are not merged', 'extents/neighbours-merge', (batch) =>
    batch.flatMap((extent) => {
      if (extent.status === 'data' || extent.length < 2) return [extent];
      const half = byteLength(1);
      return [
        { ...extent, length: half },
        {
          ...extent,
          offset: guestOffset(extent.offset + 1),
          length: byteLength(extent.length - 1),
        },
      ];
    }),
  ),
  extentsMutant('the last extent ends early', 'extents/any-range', (batch) =>
    batch.map((extent, index) =>
      index === batch.length - 1 ? { ...extent, length: byteLength(extent.length - 1) } : extent,
    ),
  ),
  extentsMutant('data is said to be one byte further', 'extents/data-lies-where-it-says', (batch) =>
    batch.map((extent) =>
      extent.status === 'data' ? { ...extent, host: hostOffset(extent.host + 1) } : extent,
    ),
  ),
  extentsMutant('everything is said to be data', 'read/new-image/backed', (batch) =>
    batch.map(({ offset, length }) => ({ offset, length, status: 'compressed' })),
  ),
  mutant(
    '`below` is asked for everything',
    'read/new-image/backed',
    (image) => new BelowForEverything(image),
  ),
  mutant(
    'zeros are left out of the target',
    'read/old-bytes-of-the-target',
    (image) => new ZerosAreNotFilled(image),
  ),
  mutant(
    'reading spills over the target',
    'read/only-the-target',
    (image) => new SpillsOver(image),
  ),
  mutant('reading writes', 'read/never-writes', (image) => new ReadingWrites(image)),
  mutant('units that do not divide a cluster', 'create/facts', (image) => new CoarseUnits(image)),
];
