import { ImageError } from '@downfold/image';
import type { Storage } from '@downfold/storage';
import { hostOffset } from '@downfold/units';
import type { Formats } from './policy.ts';

const HEAD_BYTES = 512;

/** Formats that nobody here reads, and whose images may read through one of ours; by how their files begin. */
const FOREIGN: Readonly<Record<string, string>> = { QED: 'QED\0' };

/** The format that recognises the start of a file; null: none does, as of a raw one. */
export async function recognise(
  storage: Pick<Storage, 'read'>,
  formats: Formats,
): Promise<Formats[number] | null> {
  const head = new Uint8Array(HEAD_BYTES);
  await storage.read(hostOffset(0), head);
  return formats.find((one) => one.recognises(head)) ?? null;
}

/** @throws ImageError `IMAGE_UNSUPPORTED` for a file of a format that nobody here reads, and that may have a backing file of any format */
export async function assertNotForeign(storage: Pick<Storage, 'read' | 'label'>): Promise<void> {
  const head = new Uint8Array(4);
  await storage.read(hostOffset(0), head);
  const magic = String.fromCharCode(...head);
  for (const [format, wanted] of Object.entries(FOREIGN))
    if (magic === wanted)
      throw new ImageError(
        'IMAGE_UNSUPPORTED',
        `${storage.label}: is a ${format} image, which Downfold does not read`,
        { image: storage.label, format },
      );
}
