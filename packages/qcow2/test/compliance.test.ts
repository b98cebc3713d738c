import { verify } from '@downfold/compliance';
import type { ImageAbility } from '@downfold/image';
import {
  type ImageCase,
  type ImageSubject,
  imageKit,
  imageSubject,
} from '@downfold/image/compliance';
import { memoryBackend } from '@downfold/storage-memory';
import { describe, test } from 'vitest';
import { type Qcow2CreateOptions, qcow2 } from '../src/index.ts';

/**
 * The kit on every kind of qcow2 image. Replay a failure: DOWNFOLD_SEED=n vitest run --project qcow2 compliance
 */
const only = process.env['DOWNFOLD_SEED'];
const tier = process.env['DOWNFOLD_TIER'];
const quick = tier !== 'ci' && tier !== 'long';
const count = quick ? 1 : tier === 'ci' ? 10 : 100;
const seeds =
  only === undefined ? Array.from({ length: count }, (_, index) => index + 1) : [Number(only)];

const KIB = 1024;

/** Version 2 has no zero flag. */
const withoutZero: ReadonlySet<ImageAbility> = new Set(
  [...qcow2.abilities].filter((ability) => ability !== 'zero'),
);

type Kind = Omit<ImageSubject<Qcow2CreateOptions>, 'format' | 'backend'>;

const kinds: Readonly<Record<string, Kind>> = {
  defaults: {},
  'version 2, 64 KiB': { create: { version: 2 }, abilities: withoutZero },
  'version 2, 512 B': { create: { version: 2, clusterSize: 512 }, abilities: withoutZero },
  'version 2, 4 KiB': { create: { version: 2, clusterSize: 4 * KIB }, abilities: withoutZero },
  'version 3, 512 B': { create: { clusterSize: 512 } },
  'version 3, 4 KiB': { create: { clusterSize: 4 * KIB } },
  'extended L2, 16 KiB': { create: { extendedL2: true, clusterSize: 16 * KIB } },
  'extended L2, 64 KiB': { create: { extendedL2: true } },
  'lazy refcounts': { create: { lazyRefcounts: true, clusterSize: 4 * KIB } },
  zstd: { create: { compression: 'zstd', clusterSize: 4 * KIB } },
  ...Object.fromEntries(
    [1, 2, 4, 8, 16, 32, 64].map((refcountBits) => [
      `refcounts of ${refcountBits} bits`,
      { create: { refcountBits, clusterSize: refcountBits < 8 ? 4 * KIB : 512 } },
    ]),
  ),
};

/** Tables of 2 MiB take a tenth of a second a case: in the quick tier one kind of them, overlays only, and no crashes. */
const largeKinds: Readonly<Record<string, Kind>> = {
  'version 3, 2 MiB': { create: { clusterSize: 2048 * KIB } },
  'extended L2, 2 MiB': { create: { clusterSize: 2048 * KIB, extendedL2: true } },
};
const ids = new Set(imageKit.map(({ id }) => id));
const overlaysOnly = imageKit.filter(
  ({ id }) => !id.startsWith('crash/') && (id.endsWith('/backed') || !ids.has(`${id}/backed`)),
);

function verifyKind(kit: readonly ImageCase[], kind: Kind, seed: number): void {
  const subject = imageSubject({ ...kind, format: qcow2, backend: () => memoryBackend() });
  verify(kit, subject, test, seed);
}

describe.each(seeds)('seed %i', (seed) => {
  describe.each(Object.entries(kinds))('qcow2, %s', (_, kind) => {
    verifyKind(imageKit, kind, seed);
  });
  describe.each(Object.entries(largeKinds).slice(0, quick ? 1 : 2))('qcow2, %s', (_, kind) => {
    verifyKind(quick ? overlaysOnly : imageKit, kind, seed);
  });
});
