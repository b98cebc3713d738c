import type { ImageAbility, ImageFormat } from '@downfold/image';
import { createImage, type Qcow2CreateOptions } from './create.ts';
import { hasMagic } from './header.ts';
import { Qcow2Image } from './image.ts';
import { openState } from './open.ts';

const abilities: ReadonlySet<ImageAbility> = new Set([
  'backing',
  'zero',
  'deallocate',
  'mark',
  'check',
  'stage',
]);

/** The qcow2 format, versions 2 and 3. Source: QEMU, docs/interop/qcow2.rst. */
export const qcow2: ImageFormat<Qcow2CreateOptions> = {
  name: 'qcow2',
  abilities,
  recognises: hasMagic,
  open: async (storage, options) => new Qcow2Image(await openState(storage, options)),
  create: async (storage, options) => {
    await createImage(storage, options);
    return new Qcow2Image(await openState(storage, { mode: 'write' }));
  },
};
