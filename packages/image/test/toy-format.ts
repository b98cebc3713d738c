import { alignUp, byteLength, hostOffset } from '@downfold/units';
import {
  type CreateImageOptions,
  DEFAULT_IMAGE_LIMITS,
  ImageError,
  type ImageFormat,
} from '../src/index.ts';
import { ToyImage } from './toy-image.ts';
import { CLUSTER, encodeHead, isHead, readState, type ToyState } from './toy-state.ts';

const SECTOR = 512;
const OF_IMAGE = { headAt: 0, shared: new Set<number>() };

/** A format that exists to test the compliance kit. */
export const toy: ImageFormat = {
  name: 'toy',
  abilities: new Set(['backing', 'zero', 'deallocate', 'grow', 'mark', 'check', 'stage']),
  recognises: isHead,

  open: async (storage, { mode, limits, signal }) => {
    signal?.throwIfAborted();
    const found = await readState(storage, 0);
    if (found === null)
      throw new ImageError('IMAGE_NOT_RECOGNISED', `${storage.label}: not a toy image`);
    const { state } = found;
    if (state.size > (limits?.virtualSize ?? DEFAULT_IMAGE_LIMITS.virtualSize))
      throw new ImageError('IMAGE_LIMIT', `${storage.label}: ${state.size} bytes are too many`);
    const space = { end: await storage.length() };
    return new ToyImage({ ...OF_IMAGE, storage, state, space, writable: mode === 'write' });
  },

  create: async (storage, options: CreateImageOptions) => {
    options.signal?.throwIfAborted();
    const size = byteLength(alignUp(options.virtualSize, SECTOR));
    const state: ToyState = { size, backing: options.backing ?? null, mark: null, clusters: [] };
    const bytes = new TextEncoder().encode(JSON.stringify(state));
    await storage.write(hostOffset(CLUSTER), bytes);
    await storage.flush('toy: state before head');
    await storage.write(hostOffset(0), encodeHead({ toy: 1, at: CLUSTER, bytes: bytes.length }));
    await storage.flush('toy: new image');
    const space = { end: CLUSTER + bytes.length };
    return new ToyImage({ ...OF_IMAGE, storage, state, space, writable: true });
  },
};
