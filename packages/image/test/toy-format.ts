import { alignUp, byteLength, hostOffset } from '@downfold/units';
import {
  type CreateImageOptions,
  DEFAULT_IMAGE_LIMITS,
  ImageError,
  type ImageFormat,
} from '../src/index.ts';
import { CLUSTER, encodeHead, type ToyHead, ToyImage, type ToyState } from './toy-image.ts';

const SECTOR = 512;
const MAGIC = '{"toy":1,';

/** A format that exists to test the compliance kit. */
export const toy: ImageFormat = {
  name: 'toy',
  abilities: new Set(['backing', 'zero', 'deallocate', 'mark', 'check']),
  recognises: (head) => text(head.subarray(0, MAGIC.length)) === MAGIC,

  open: async (storage, { mode, limits, signal }) => {
    signal?.throwIfAborted();
    const sector = new Uint8Array(SECTOR);
    await storage.read(hostOffset(0), sector);
    if (!toy.recognises(sector))
      throw new ImageError('IMAGE_NOT_RECOGNISED', `${storage.label}: not a toy image`);
    const head = JSON.parse(text(sector)) as ToyHead;
    const bytes = new Uint8Array(head.bytes);
    await storage.read(hostOffset(head.at), bytes);
    const state = JSON.parse(text(bytes)) as ToyState;
    if (state.size > (limits?.virtualSize ?? DEFAULT_IMAGE_LIMITS.virtualSize))
      throw new ImageError('IMAGE_LIMIT', `${storage.label}: ${state.size} bytes are too many`);
    const end = Math.max(await storage.length(), CLUSTER);
    return new ToyImage(storage, state, end, mode === 'write');
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
    return new ToyImage(storage, state, CLUSTER + bytes.length, true);
  },
};

function text(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes);
}
