import type { Image, ImageAbility, ImageFormat, OpenImageOptions } from '@downfold/image';
import type { Storage } from '@downfold/storage';
import { guestOffset } from '@downfold/units';
import { createImage, type Qcow2CreateOptions } from './create.ts';
import { hasMagic } from './header.ts';
import { type Qcow2, Qcow2Image } from './image.ts';
import { openState } from './open.ts';
import { type RepairOptions, type RepairReport, repairImage } from './repair.ts';

const abilities: ReadonlySet<ImageAbility> = new Set([
  'backing',
  'zero',
  'deallocate',
  'grow',
  'mark',
  'check',
  'stage',
]);

/** The format, whose images can do what only qcow2 has. */
export interface Qcow2Format extends ImageFormat<Qcow2CreateOptions> {
  open(storage: Storage, options: OpenImageOptions): Promise<Qcow2>;
  create(storage: Storage, options: Qcow2CreateOptions): Promise<Qcow2>;
  /**
   * Repairs an image that nobody has open; durable when it resolves. `storage`, opened for writing, stays the caller's. Clusters of a staging that is
   * not published are leaks. @throws ImageError, before anything is written, for what cannot be read or checked; `IMAGE_NEEDS_REPAIR` where leaks
   * alone cannot be told
   */
  repair(storage: Storage, options: RepairOptions): Promise<RepairReport>;
}

/** Whether an image was opened by this package, and so has what only qcow2 has. */
export function isQcow2(image: Image): image is Qcow2 {
  return image instanceof Qcow2Image;
}

/** The qcow2 format, versions 2 and 3. Source: QEMU, docs/interop/qcow2.rst. */
export const qcow2: Qcow2Format = {
  name: 'qcow2',
  abilities,
  recognises: hasMagic,
  repair: repairImage,
  open: async (storage, options) => new Qcow2Image(await openState(storage, options)),
  create: async (storage, options) => {
    const { dataFile, virtualSize } = options;
    await createImage(storage, options);
    const openDataFile = dataFile && (async (): Promise<Storage> => dataFile.storage);
    const secret = options.encryption?.secret;
    const opening = { mode: 'write', limits: options.limits ?? {}, openDataFile, secret } as const;
    const image = new Qcow2Image(await openState(storage, opening));
    if (dataFile?.raw && dataFile.storage.supports.resize)
      await dataFile.storage.setLength(image.geometry.virtualSize);
    const asked = options.preallocation ?? 'off';
    // as QEMU: a raw data file is mapped whole, so that it is the disk whatever was written
    const preallocation = dataFile?.raw && asked === 'off' ? 'metadata' : asked;
    if (preallocation === 'off' || virtualSize === 0) return image;
    const whole = { offset: guestOffset(0), length: image.geometry.virtualSize };
    await image.preallocate(whole, preallocation, options);
    await image.flush();
    return image;
  },
};
