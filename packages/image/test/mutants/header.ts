import { byteLength, hostOffset } from '@downfold/units';
import type {
  BackingReference,
  CheckReport,
  CreateImageOptions,
  ImageFormat,
  ImageMark,
} from '../../src/index.ts';
import { decorated, ImageDecorator } from '../image-decorator.ts';
import { toy } from '../toy-format.ts';
import { CLUSTER } from '../toy-state.ts';
import { formatMutant, type Mutant, mutant } from './mutant.ts';

class BackingInMemory extends ImageDecorator {
  #backing: BackingReference | null | undefined;

  override get backing(): BackingReference | null {
    return this.#backing === undefined ? this.inner.backing : this.#backing;
  }
  override async setBacking(reference: BackingReference | null): Promise<void> {
    await this.inner.assertRoomFor(reference ?? { name: '', format: null });
    this.#backing = reference;
  }
  override async [Symbol.asyncDispose](): Promise<void> {
    if (this.#backing !== undefined) await this.inner.setBacking(this.#backing);
    await this.inner[Symbol.asyncDispose]();
  }
}

class BackingInTwoSteps extends ImageDecorator {
  override async setBacking(reference: BackingReference | null): Promise<void> {
    if (reference === null) return this.inner.setBacking(null);
    await this.inner.setBacking({ ...reference, format: this.backing?.format ?? null });
    await this.inner.setBacking(reference);
  }
}

class ForgetsTheFormat extends ImageDecorator {
  override setBacking(reference: BackingReference | null): Promise<void> {
    return this.inner.setBacking(reference === null ? null : { ...reference, format: 'raw' });
  }
}

class AlwaysHasRoom extends ImageDecorator {
  override async assertRoomFor(): Promise<void> {}
}

class AskingWrites extends ImageDecorator {
  override async assertRoomFor(reference: BackingReference): Promise<void> {
    await this.inner.assertRoomFor(reference);
    const byte = new Uint8Array(1);
    await this.data.read(hostOffset(0), byte);
    await this.data.write(hostOffset(0), byte);
  }
}

class MarkInMemory extends ImageDecorator {
  #mark: ImageMark | null = null;

  override get mark(): ImageMark | null {
    return this.#mark;
  }
  override async setMark(mark: ImageMark | null): Promise<void> {
    this.#mark = mark;
  }
}

class MarkCostsTheBacking extends ImageDecorator {
  override async setMark(mark: ImageMark | null): Promise<void> {
    await this.inner.setBacking(null);
    await this.inner.setMark(mark);
  }
}

class MarkInTwoSteps extends ImageDecorator {
  override async setMark(mark: ImageMark | null): Promise<void> {
    if (mark !== null) await this.inner.setMark({ ...mark, job: '' });
    await this.inner.setMark(mark);
  }
}

class MarksHalf extends ImageDecorator {
  override async setMark(mark: ImageMark | null): Promise<void> {
    if (mark !== null && mark.job.length > 200) await this.inner.setMark({ ...mark, job: '' });
    await this.inner.setMark(mark);
  }
}

class SameFingerprint extends ImageDecorator {
  override get fingerprint(): string {
    return '00000000';
  }
}

class CountsWrong extends ImageDecorator {
  override async check(): Promise<CheckReport> {
    return { ...(await this.inner.check()), allocatedClusters: 0 };
  }
}

class SeesLeaks extends ImageDecorator {
  override async check(): Promise<CheckReport> {
    return { ...(await this.inner.check()), leaks: 1 };
  }
}

class ReclaimsSomething extends ImageDecorator {
  override async reclaimLeaks(): Promise<number> {
    return 1;
  }
}

class KeepsItsFile extends ImageDecorator {
  override async [Symbol.asyncDispose](): Promise<void> {}
}

const opensAndWrites: ImageFormat['open'] = async (storage, options) => {
  const sector = new Uint8Array(512);
  await storage.read(hostOffset(0), sector);
  await storage.write(hostOffset(0), sector);
  return toy.open(storage, options);
};

const createsUnflushed: ImageFormat['create'] = async (storage, options) => {
  const image = await toy.create(storage, options);
  await storage.write(hostOffset(0), new Uint8Array(512));
  await storage.flush('mutant: no head yet');
  const head = JSON.stringify({ toy: 1, at: CLUSTER, bytes: (await storage.length()) - CLUSTER });
  await storage.write(hostOffset(0), new TextEncoder().encode(head));
  return image;
};

const roundsDown: ImageFormat['create'] = (storage, options: CreateImageOptions) =>
  toy.create(storage, {
    ...options,
    virtualSize: byteLength(options.virtualSize - (options.virtualSize % 512)),
  });

const closesOnFailure: ImageFormat['create'] = async (storage, options) => {
  try {
    return await toy.create(storage, options);
  } catch (error) {
    await storage[Symbol.asyncDispose]();
    throw error;
  }
};

/** What is in the header, and the life of an image. */
export const header: readonly Mutant[] = [
  mutant('setBacking is not durable', 'backing/durable', (image) => new BackingInMemory(image)),
  mutant(
    'setBacking takes two steps',
    'backing/old-or-new',
    (image) => new BackingInTwoSteps(image),
  ),
  mutant(
    'the backing format is made up',
    'backing/round-trip',
    (image) => new ForgetsTheFormat(image),
  ),
  mutant(
    'there is always room, until there is not',
    'backing/room',
    (image) => new AlwaysHasRoom(image),
  ),
  mutant('asking for room writes', 'backing/room', (image) => new AskingWrites(image)),
  mutant('marks are not in the file', 'mark/round-trip', (image) => new MarkInMemory(image)),
  mutant(
    'a mark costs the backing file',
    'mark/beside-a-backing-file',
    (image) => new MarkCostsTheBacking(image),
  ),
  mutant('a mark takes two steps', 'mark/old-or-new', (image) => new MarkInTwoSteps(image)),
  mutant('a mark without room is half written', 'mark/no-room', (image) => new MarksHalf(image)),
  mutant(
    'the fingerprint is constant',
    'backing/round-trip',
    (image) => new SameFingerprint(image),
  ),
  mutant('a check that counts nothing', 'check/counts', (image) => new CountsWrong(image)),
  mutant('a check that sees leaks', 'check/clean-at-any-time', (image) => new SeesLeaks(image)),
  mutant(
    'leaks are reclaimed where there are none',
    'reclaim/nothing',
    (image) => new ReclaimsSomething(image),
  ),
  mutant('closing leaves the file open', 'open/owns-its-file', (image) => new KeepsItsFile(image)),
  formatMutant('opening writes', 'open/unchanged', { open: opensAndWrites }),
  formatMutant('a new image is not durable', 'create/durable', { create: createsUnflushed }),
  formatMutant('sizes are rounded down', 'create/sizes', { create: roundsDown }),
  formatMutant('a failed creation closes the file', 'open/aborted', { create: closesOnFailure }),
  formatMutant('everything is recognised', 'format/recognises-its-own', { recognises: () => true }),
  formatMutant('limits are ignored', 'open/limit', {
    open: (storage, { limits: _, ...options }) => toy.open(storage, options),
  }),
  formatMutant('opened for reading it can be written', 'open/same-facts', {
    open: (storage, options) => toy.open(storage, { ...options, mode: 'write' }),
  }),
  {
    name: 'a format of another name',
    killedBy: 'create/facts',
    format: decorated({ ...toy, name: 'other' }, (image) => image),
  },
];
