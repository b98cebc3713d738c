// TEMPORARY: leaf only, until chain's openChain is there
import { qcow2 } from '@downfold/qcow2';
import { fileBackend } from '@downfold/storage-file';
import { byteLength, guestOffset } from '@downfold/units';
import type { Verdict } from './crafted/case.ts';

export interface OpenForReading extends AsyncDisposable {
  readonly virtualSize: number;
  map(most: number): Promise<number>;
  read(at: number, target: Uint8Array): Promise<void>;
  check(): Promise<Verdict>;
}

export async function openForReading(
  path: string,
  _root: string,
  opened: string[],
): Promise<OpenForReading> {
  const storage = await fileBackend().open(path, 'read');
  opened.push(path);
  const image = await qcow2.open(storage, { mode: 'read' }).catch(async (e) => {
    await storage[Symbol.asyncDispose]();
    throw e;
  });
  const virtualSize = image.geometry.virtualSize;
  return {
    virtualSize,
    map: async (most) => {
      let n = 0;
      for await (const b of image.extents({
        offset: guestOffset(0),
        length: byteLength(virtualSize),
      })) {
        n += b.length;
        if (n > most) break;
      }
      return n;
    },
    read: (at, target) => image.read(guestOffset(at), target, null),
    check: async () => {
      const r = await image.check();
      return r.corruptions > 0 ? 'corruptions' : r.leaks > 0 ? 'leaks' : 'clean';
    },
    [Symbol.asyncDispose]: () => image[Symbol.asyncDispose](),
  };
}
