import type { Qcow2State } from './state.ts';
import { COMPATIBLE, COMPRESSION, INCOMPATIBLE } from './structures.ts';

/** What `qemu-img info` shows under `format-specific.data`, with its keys. */
export function describeImage(state: Qcow2State): Readonly<Record<string, unknown>> {
  const { header, geometry } = state;
  const [, incompatible] = header.incompatible;
  if (header.version === 2)
    return { compat: '0.10', 'compression-type': 'zlib', 'refcount-bits': geometry.refcountBits };
  return {
    compat: '1.1',
    'compression-type': header.compressionType === COMPRESSION.zstd ? 'zstd' : 'zlib',
    'lazy-refcounts': (header.compatible[1] & COMPATIBLE.lazyRefcounts) !== 0,
    'refcount-bits': geometry.refcountBits,
    corrupt: (incompatible & INCOMPATIBLE.corrupt) !== 0,
    'extended-l2': geometry.extendedL2,
  };
}
