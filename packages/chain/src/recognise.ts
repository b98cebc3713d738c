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
  return recognisedBy(await headOf(storage), formats);
}

/** As `recognise`. @throws ImageError `IMAGE_UNSUPPORTED` for a format that nobody here reads, and whose images may have a backing file of any format */
export async function recogniseOwn(
  storage: Pick<Storage, 'read' | 'label'>,
  formats: Formats,
): Promise<Formats[number] | null> {
  const head = await headOf(storage);
  const format = recognisedBy(head, formats);
  if (format === null) assertNotForeign(head, storage.label);
  return format;
}

async function headOf(storage: Pick<Storage, 'read'>): Promise<Uint8Array> {
  const head = new Uint8Array(HEAD_BYTES);
  await storage.read(hostOffset(0), head);
  return head;
}

function recognisedBy(head: Uint8Array, formats: Formats): Formats[number] | null {
  return formats.find((one) => one.recognises(head)) ?? null;
}

function assertNotForeign(head: Uint8Array, label: string): void {
  const magic = String.fromCharCode(...head.subarray(0, 4));
  for (const [format, wanted] of Object.entries(FOREIGN))
    if (magic === wanted)
      throw new ImageError(
        'IMAGE_UNSUPPORTED',
        `${label}: is a ${format} image, which Downfold does not read`,
        { image: label, format },
      );
}
