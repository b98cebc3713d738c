import type { Storage } from '@downfold/storage';
import { hostOffset } from '@downfold/units';
import type { Formats } from './policy.ts';

const HEAD_BYTES = 512;

/** The format that recognises the start of a file; null: none does, as of a raw one. */
export async function recognise(
  storage: Pick<Storage, 'read'>,
  formats: Formats,
): Promise<Formats[number] | null> {
  const head = new Uint8Array(HEAD_BYTES);
  await storage.read(hostOffset(0), head);
  return formats.find((one) => one.recognises(head)) ?? null;
}
