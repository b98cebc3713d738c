import { byteLength, hostOffset } from '@downfold/units';
import type { ImageGeometry, StageOptions, Staging } from '../../src/index.ts';
import { ImageDecorator } from '../image-decorator.ts';
import { type Mutant, mutant } from './mutant.ts';

/** Images whose stagings are changed. */
class OtherStaging extends ImageDecorator {
  readonly #change: (staging: Staging, image: OtherStaging) => Partial<Staging>;

  constructor(
    inner: ImageDecorator['inner'],
    change: (staging: Staging, image: OtherStaging) => Partial<Staging>,
  ) {
    super(inner);
    this.#change = change;
  }
  override async stage(options: StageOptions): Promise<Staging> {
    const staging = await this.inner.stage(options);
    const changed = Object.getOwnPropertyDescriptors(this.#change(staging, this));
    return Object.defineProperties({ ...staging }, changed);
  }
}

class ForgetsTheToken extends ImageDecorator {
  override stage(options: StageOptions): Promise<Staging> {
    return this.inner.stage({ ...options, from: null });
  }
}

class ShowsWhatLiesBelow extends ImageDecorator {
  override stage(options: StageOptions): Promise<Staging> {
    return this.inner.stage({ ...options, fill: null });
  }
}

class GrowsAtOnce extends ImageDecorator {
  #size: number | null = null;

  override get geometry(): ImageGeometry {
    const { virtualSize, ...geometry } = this.inner.geometry;
    return { ...geometry, virtualSize: byteLength(this.#size ?? virtualSize) };
  }
  override stage(options: StageOptions): Promise<Staging> {
    this.#size = options.virtualSize;
    return this.inner.stage(options);
  }
}

class DropsWritesWhileStaged extends ImageDecorator {
  override async write(...args: Parameters<ImageDecorator['write']>): Promise<void> {
    await this.inner.write(...args).catch(() => {});
  }
}

/** A second mapping that is none. */
export const staging: readonly Mutant[] = [
  mutant(
    'a flush publishes',
    'stage/aside',
    (image) =>
      new OtherStaging(image, ({ publish }) => ({ flush: () => publish({ keepUndo: null }) })),
  ),
  mutant(
    'publishing does nothing',
    'stage/publish',
    (image) => new OtherStaging(image, ({ discard }) => ({ publish: discard })),
  ),
  mutant(
    'publishing takes two writes',
    'stage/old-or-new',
    (image) =>
      new OtherStaging(image, ({ publish }, { data }) => ({
        publish: async (options) => {
          await data.write(hostOffset(0), new Uint8Array(512));
          await data.flush('mutant: no head');
          await publish(options);
        },
      })),
  ),
  mutant(
    'a published staging is not known as such',
    'stage/publish',
    (image) => new OtherStaging(image, () => ({ published: false })),
  ),
  mutant(
    'the undo snapshot is published',
    'stage/undo',
    (image) =>
      new OtherStaging(image, ({ publish, discard }) => ({
        publish: (options) => (options.keepUndo === null ? publish(options) : discard()),
      })),
  ),
  mutant(
    'a discard publishes',
    'stage/another-process',
    (image) =>
      new OtherStaging(image, ({ publish }) => ({ discard: () => publish({ keepUndo: null }) })),
  ),
  mutant(
    'the token changes',
    'stage/another-process',
    (image) =>
      new OtherStaging(image, ({ token }) => {
        let reads = 0;
        return {
          get token() {
            return { ...token, reads: reads++ };
          },
        };
      }),
  ),
  mutant('a token is ignored', 'stage/another-process', (image) => new ForgetsTheToken(image)),
  mutant(
    'what lies below shows in a larger disk',
    'stage/larger/backed',
    (image) => new ShowsWhatLiesBelow(image),
  ),
  mutant('the disk grows before the publish', 'stage/larger', (image) => new GrowsAtOnce(image)),
  mutant(
    'writes to a staged image are dropped',
    'stage/image-is-frozen',
    (image) => new DropsWritesWhileStaged(image),
  ),
  mutant(
    'what is abandoned is published',
    'stage/abandoned',
    (image) =>
      new OtherStaging(image, ({ publish }) => ({ flush: () => publish({ keepUndo: null }) })),
  ),
];
