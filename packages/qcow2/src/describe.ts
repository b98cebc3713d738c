import type { ImageDescription } from '@downfold/image';
import { readBitmaps } from './bitmaps.ts';
import { loadLuks } from './encryption.ts';
import { readSnapshots, snapshotFacts } from './snapshots.ts';
import type { Qcow2State } from './state.ts';
import { BITMAP, COMPATIBLE, COMPRESSION, INCOMPATIBLE } from './structures.ts';

/** What `qemu-img info` shows, with its keys under `specific`. */
export async function describeImage(state: Qcow2State): Promise<ImageDescription> {
  const [, incompatible] = state.header.incompatible;
  return {
    dirty: (incompatible & INCOMPATIBLE.dirty) !== 0,
    encrypted: state.luks !== null,
    snapshots: (await readSnapshots(state)).map(snapshotFacts),
    specific: await specificOf(state, incompatible),
  };
}

async function specificOf(
  state: Qcow2State,
  incompatible: number,
): Promise<ImageDescription['specific']> {
  const { header, geometry, luks } = state;
  const encrypt =
    luks === null ? {} : { encrypt: (await loadLuks()).describeHeader(luks, { format: 'luks' }) };
  if (header.version === 2)
    return {
      compat: '0.10',
      'compression-type': 'zlib',
      'refcount-bits': geometry.refcountBits,
      ...encrypt,
    };
  const bitmaps = ((await readBitmaps(state))?.bitmaps ?? []).map(
    ({ flags, name, granularity }) => ({
      flags: [
        ...((flags & BITMAP.inUse) === 0 ? [] : ['in-use']),
        ...((flags & BITMAP.auto) === 0 ? [] : ['auto']),
      ],
      name,
      granularity,
    }),
  );
  return {
    compat: '1.1',
    'compression-type': header.compressionType === COMPRESSION.zstd ? 'zstd' : 'zlib',
    'lazy-refcounts': (header.compatible[1] & COMPATIBLE.lazyRefcounts) !== 0,
    ...(bitmaps.length === 0 ? {} : { bitmaps }),
    'refcount-bits': geometry.refcountBits,
    ...(header.dataFile === null
      ? {}
      : { 'data-file': header.dataFile.name, 'data-file-raw': header.dataFile.raw }),
    ...encrypt,
    corrupt: (incompatible & INCOMPATIBLE.corrupt) !== 0,
    'extended-l2': geometry.extendedL2,
  };
}
