import { perTier, seededRandom, verify } from '@downfold/compliance';
import { storageKit } from '@downfold/storage/compliance';
import { describe, test } from 'vitest';
import { type Calls, fileBackendDriver, nodeCalls } from '../src/index.ts';
import { perlLocks } from '../src/ofd-locks.ts';
import { fileSubjects, sharesByCopying, systemError } from './support.ts';

/** System calls that move fewer bytes than asked for, and are interrupted now and then. Never less than a 1/16th, for speed. */
function stingyCalls(seed: number): Calls {
  const random = seededRandom(seed);
  const some = (bytes: Uint8Array): Uint8Array => {
    if (random() < 0.2) throw systemError('EINTR');
    return bytes.subarray(0, Math.ceil(bytes.length * Math.max(1 / 16, random())));
  };
  return {
    ...nodeCalls,
    readSync: (fd, target, offset) => nodeCalls.readSync(fd, some(target), offset),
    writeSync: (fd, source, offset) => nodeCalls.writeSync(fd, some(source), offset),
    read: async (fd, target, offset) => await nodeCalls.read(fd, some(target), offset),
  };
}

describe('files of this machine pass the storage kit', () => {
  verify(storageKit, fileSubjects(fileBackendDriver), test);
});

describe('also when system calls stop short and are interrupted', () => {
  verify(
    storageKit,
    fileSubjects(() => fileBackendDriver(stingyCalls(1))),
    test,
  );
});

describe('also where files share blocks', () => {
  const copies = storageKit.filter(({ id }) => /^(copy|random|concurrent)\//.test(id));
  const sharing = { ...stingyCalls(5), shareBlocks: sharesByCopying };
  verify(
    copies,
    fileSubjects(() => fileBackendDriver(sharing)),
    test,
  );
});

describe('also without native calls: no holes, and locks by another process', () => {
  const none = {
    punchHole: null,
    punchOffThread: null,
    zeroRange: null,
    seek: null,
    shareBlocks: null,
    willRead: null,
  };
  const without = { ...nodeCalls, ...none, locks: perlLocks };
  verify(
    storageKit,
    fileSubjects(() => fileBackendDriver(without), { holes: false }),
    test,
  );
});

describe.each([2, 3, 4].slice(0, perTier({ quick: 1, ci: 3, long: 3 })))(
  'random operations with seed %i',
  (seed) => {
    const random = storageKit.filter(({ id }) => id.startsWith('random/'));
    verify(
      random,
      fileSubjects(() => fileBackendDriver(stingyCalls(seed))),
      test,
      seed,
    );
  },
);
