import type { ImageHeader } from '@downfold/luks';
import type { Storage } from '@downfold/storage';
import { imageError } from './corrupt.ts';
import type { Header } from './header.ts';
import type { Qcow2State } from './state.ts';

/** Loaded where there is an encrypted image: all of Node's crypto comes with it. */
export function loadLuks(): Promise<typeof import('@downfold/luks')> {
  return import('@downfold/luks');
}

/** The LUKS header of an image; null: it is not encrypted. */
export async function readEncryption(
  storage: Storage,
  { encryption }: Header,
): Promise<ImageHeader | null> {
  if (encryption === null) return null;
  const { readImageHeader } = await loadLuks();
  return await readImageHeader(storage, encryption.offset, encryption.length);
}

/** @throws ImageError `IMAGE_UNSUPPORTED` for what QEMU does not have in an encrypted image either. */
export function assertPlain(state: Qcow2State, what: string): void {
  if (state.luks === null) return;
  const feature = `${what} in an encrypted image`;
  throw imageError('IMAGE_UNSUPPORTED', state.label, feature, undefined, { feature });
}
