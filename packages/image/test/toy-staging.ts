import { hostOffset } from '@downfold/units';
import { type Image, ImageError, type StageOptions, type Staging } from '../src/index.ts';
import { encodeHead, readState, type ToyParts, type ToyState, takeSpace } from './toy-state.ts';

/** An image to stage on. */
export interface StagedOn {
  readonly parts: ToyParts;
  readonly state: ToyState;
}

/** An image that can be written although nothing in it changed. */
export interface StagedImage extends Image {
  publishFirst(): Promise<void>;
}

/** A staging: an image over the same file with a head of its own. `ended` gets what was published, or null. */
export async function stageToy(
  { parts, state }: StagedOn,
  { from, virtualSize, fill }: StageOptions,
  imageOf: (parts: ToyParts) => StagedImage,
  ended: (state: ToyState | null) => void,
): Promise<Staging> {
  const { storage, space } = parts;
  const headAt = from === null ? takeSpace(space, 512) : (from['head'] ?? 0);
  const found = from === null ? null : await readState(storage, headAt);
  if (from !== null && found === null)
    throw new ImageError('IMAGE_UNSUPPORTED', `${storage.label}: no staging at ${headAt}`);
  const shared = new Set(state.clusters.map(([, place]) => Number(place)));
  const staged = imageOf({ ...parts, headAt, shared, state: found?.state ?? state });
  if (from === null) {
    await staged.publishFirst();
    await staged.resize(virtualSize, { fill });
  }
  const image = await readState(storage, 0);
  return {
    token: { head: headAt },
    published: found !== null && found.head.at === image?.head.at,
    read: staged.read.bind(staged),
    write: staged.write.bind(staged),
    copyFrom: staged.copyFrom.bind(staged),
    writeZeroes: staged.writeZeroes.bind(staged),
    flush: staged.flush.bind(staged),
    publish: async () => {
      await staged.flush();
      const last = await readState(storage, headAt);
      if (last === null) throw new Error('a flushed staging has a head');
      await storage.write(hostOffset(0), encodeHead(last.head), { what: 'head' });
      await storage.flush('toy: published head');
      ended(last.state);
    },
    discard: async () => {
      await storage.write(hostOffset(headAt), new Uint8Array(512), { what: 'head' });
      await storage.flush('toy: no staging');
      ended(null);
    },
  };
}
