import { createHash } from 'node:crypto';
import { type ChainEnvironment, openChain, viewOf } from '@downfold/chain';
import { guestOffset } from '@downfold/units';

const BUFFER_BYTES = 1 << 20;

/** SHA-256, in hex, of all that a guest would read from the disk whose leaf is `path`. */
export async function hashView(path: string, environment: ChainEnvironment): Promise<string> {
  await using chain = await openChain(path, 'qcow2', environment);
  const { layers } = chain;
  const view = viewOf(layers, layers.length - 1);
  const size = layers.at(-1)?.image.geometry.virtualSize ?? 0;
  const hash = createHash('sha256');
  const buffer = new Uint8Array(BUFFER_BYTES);
  for (let at = 0; at < size; at += BUFFER_BYTES) {
    const piece = buffer.subarray(0, Math.min(BUFFER_BYTES, size - at));
    await view(guestOffset(at), piece);
    hash.update(piece);
  }
  return hash.digest('hex');
}
