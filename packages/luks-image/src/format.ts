import type { ImageFormat } from '@downfold/image';
import { createImage } from './create.ts';
import { openImage } from './open.ts';
import type { LuksCreateOptions } from './options.ts';
import { isLuks1 } from './recognise.ts';

/** The LUKS format, version 1, with its header at the start of the file: what QEMU calls `luks`, and cryptsetup opens. */
export const luks: ImageFormat<LuksCreateOptions> = {
  name: 'luks',
  abilities: new Set(),
  recognises: isLuks1,
  open: openImage,
  create: createImage,
};
