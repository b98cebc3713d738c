import { type ChainEnvironment, openChain, viewOf } from '@downfold/chain';
import { guestOffset } from '@downfold/units';
import type { Guest } from './guest.ts';

/** What is wrong with the disk of `size` bytes whose leaf lies at `path`, to a guest that had come to `at` of the log; null: nothing. */
export async function wrongIn(
  environment: ChainEnvironment,
  { path, size }: { readonly path: string; readonly size: number },
  at: number,
  guest: Guest,
): Promise<string | null> {
  await using chain = await openChain(path, 'qcow2', environment);
  for (const { image } of chain.layers) {
    const { corruptions } = await image.check();
    if (corruptions > 0) return `${image.label} has ${corruptions} errors`;
  }
  const found = new Uint8Array(size);
  await viewOf(chain.layers, chain.layers.length - 1)(guestOffset(0), found);
  return guest.wrongAfter(at, found);
}
