import { currentTier, perTier, verify } from '@downfold/compliance';
import { type ImageAbility, type ImageFormat, imageSecret } from '@downfold/image';
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
const tier = currentTier();
const quick = tier === 'quick';
const count = perTier({ quick: 1, ci: 1, long: 100 });
const seeds =
  only === undefined ? Array.from({ length: count }, (_, index) => index + 1) : [Number(only)];

const KIB = 1024;

/** Version 2 has no zero flag. */
const withoutZero: ReadonlySet<ImageAbility> = new Set(
  [...qcow2.abilities].filter((ability) => ability !== 'zero'),
);

type Kind = Omit<ImageSubject<Qcow2CreateOptions>, 'format' | 'backend'>;

function ofWidths(...widths: readonly number[]): Readonly<Record<string, Kind>> {
  return Object.fromEntries(
    widths.map((refcountBits) => [
      `refcounts of ${refcountBits} bits`,
      { create: { refcountBits, clusterSize: refcountBits < 8 ? 4 * KIB : 512 } },
    ]),
  );
}

/** One at least of each property. */
const kinds: Readonly<Record<string, Kind>> = {
  defaults: {},
  'version 2, 64 KiB': { create: { version: 2 }, abilities: withoutZero },
  'version 3, 512 B': { create: { clusterSize: 512 } },
  'extended L2, 16 KiB': { create: { extendedL2: true, clusterSize: 16 * KIB } },
  zstd: { create: { compression: 'zstd', clusterSize: 4 * KIB } },
  ...ofWidths(1, 64),
};

/** CI, which runs the quick tier as well, has these besides. */
const moreKinds: Readonly<Record<string, Kind>> = {
  'version 2, 512 B': { create: { version: 2, clusterSize: 512 }, abilities: withoutZero },
  'version 2, 4 KiB': { create: { version: 2, clusterSize: 4 * KIB }, abilities: withoutZero },
  'version 3, 4 KiB': { create: { clusterSize: 4 * KIB } },
  'extended L2, 64 KiB': { create: { extendedL2: true } },
  'lazy refcounts': { create: { lazyRefcounts: true, clusterSize: 4 * KIB } },
  ...ofWidths(...(tier === 'long' ? [2, 4, 8, 16, 32] : [8])),
};

const secret = imageSecret(new TextEncoder().encode('open sesame'));
const encryption = { secret, iterTime: 0 };
/** The format with the secret of its images. */
const encrypted: ImageFormat<Qcow2CreateOptions> = {
  ...qcow2,
  open: (storage, options) => qcow2.open(storage, { ...options, secret }),
};
/** Small keys: their headers are made a thousand times, and are half a megabyte each. */
const encryptedKinds: Readonly<Record<string, Kind>> = {
  'encrypted, XTS, 4 KiB': {
    create: {
      encryption: {
        ...encryption,
        cipher: { mode: 'xts', keyBytes: 32, iv: 'plain64', ivHash: null },
      },
      clusterSize: 4 * KIB,
    },
  },
  'encrypted, CBC, extended L2': {
    create: {
      encryption: {
        ...encryption,
        cipher: { mode: 'cbc', keyBytes: 16, iv: 'essiv', ivHash: 'sha256' },
      },
      extendedL2: true,
      clusterSize: 16 * KIB,
    },
  },
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

/** What writes guest data: where encryption could be forgotten. */
const movesData = overlaysOnly.filter(({ id }) => /^(write|copy|zero|resize|stage)\//.test(id));

function verifyKind(
  kit: readonly ImageCase[],
  kind: Kind,
  seed: number,
  format: ImageFormat<Qcow2CreateOptions> = qcow2,
): void {
  const subject = imageSubject({ ...kind, format, backend: () => memoryBackend() });
  verify(kit, subject, test, seed);
}

describe.each(seeds)('seed %i', (seed) => {
  const plainKinds = { quick: kinds, ci: moreKinds, long: { ...kinds, ...moreKinds } }[tier];
  describe.each(Object.entries(plainKinds))('qcow2, %s', (_, kind) => {
    verifyKind(imageKit, kind, seed);
  });
  if (tier === 'ci') return;
  // what is random in it is so of every kind
  const kindsHere = Object.entries(encryptedKinds).slice(0, seed !== seeds[0] ? 0 : quick ? 1 : 2);
  describe.each(kindsHere)('qcow2, %s', (_, kind) => {
    verifyKind(quick ? movesData : imageKit, kind, seed, encrypted);
  });
  describe.each(Object.entries(largeKinds).slice(0, quick ? 1 : 2))('qcow2, %s', (_, kind) => {
    verifyKind(quick ? overlaysOnly : imageKit, kind, seed);
  });
});
