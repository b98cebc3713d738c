import assert from 'node:assert/strict';
import { hostOffset } from '@downfold/units';
import type { FileRun, Storage } from '../storage.ts';
import {
  createFile,
  createWith,
  MAKES_FILES,
  nonZeroBytes,
  openWith,
  rangeAt,
  readAt,
  type StorageCase,
} from './subject.ts';

/** Larger than what any file system allocates at once. */
const GAP = 4 << 20;

/** The runs of a file from byte 0 to `end`. */
async function runsOf(file: Storage, end: number): Promise<readonly FileRun[]> {
  const runs: FileRun[] = [];
  for (let at = 0; at < end; ) {
    const run = await file.runAt(hostOffset(at));
    assert.ok(run.end > at, `the run at ${at} ends at ${run.end}`);
    runs.push(run);
    at = run.end;
  }
  return runs;
}

/** Whether byte `at` is in a hole. */
async function isHole(file: Storage, at: number): Promise<boolean> {
  return (await file.runAt(hostOffset(at))).hole;
}

export const runCases: readonly StorageCase[] = [
  {
    id: 'runs/bytes-are-in-no-hole',
    because: 'what is said to be a hole is not read, and would be lost in a copy',
    needs: [...MAKES_FILES],
    run: async (subject, context) => {
      const bytes = nonZeroBytes(context, 5000);
      await using file = await createWith(subject, bytes);
      await file.write(hostOffset(GAP + 123), bytes);
      const end = GAP + 5123;
      let at = 0;
      for (const run of await runsOf(file, end)) {
        const stop = Math.min(end, run.end);
        if (run.hole) {
          const read = await readAt(file, at, stop - at);
          assert.ok(!read.some((byte) => byte !== 0), `bytes in the hole at ${at}`);
        }
        at = stop;
      }
    },
  },
  {
    id: 'runs/a-write-fills-a-hole-at-once',
    because: 'who copies a disk in use asks between its writes, long before a flush',
    needs: [...MAKES_FILES],
    run: async (subject, context) => {
      await using file = await createFile(subject);
      await file.write(hostOffset(4 * GAP), nonZeroBytes(context, 10));
      for (const at of [GAP, 0, 2 * GAP + 4095, 3 * GAP]) {
        await file.runAt(hostOffset(at));
        await file.write(hostOffset(at), nonZeroBytes(context, 1));
        assert.equal(await isHole(file, at), false, `a hole at ${at}`);
      }
    },
  },
  {
    id: 'runs/the-last-byte-is-in-no-hole',
    because: 'files end anywhere, and file systems keep whole blocks',
    needs: [],
    run: async (subject, context) => {
      await using file = await openWith(subject, nonZeroBytes(context, 512 * 9 + 512));
      const last = (await file.length()) - 1;
      assert.equal(await isHole(file, last), false, `a hole at ${last}`);
      assert.equal(await isHole(file, 0), false, 'a hole at 0');
    },
  },
  {
    id: 'runs/past-the-end-is-a-hole',
    because: 'a raw disk may be longer than its file, and is asked about as a whole',
    needs: [],
    run: async (subject, context) => {
      await using file = await openWith(subject, context.bytes(512));
      const length = await file.length();
      for (const at of [length, length + 1, 2 ** 45]) {
        const { hole, end } = await file.runAt(hostOffset(at));
        assert.ok(hole, `no hole at ${at}`);
        assert.ok(end > at, `ends at ${end}`);
      }
    },
  },
  {
    id: 'runs/holes-are-found',
    because: 'a copy of a sparse file takes the time of its bytes, and not of its length',
    needs: [...MAKES_FILES, 'holes'],
    run: async (subject, context) => {
      const bytes = nonZeroBytes(context, 1 << 16);
      await using file = await createWith(subject, bytes);
      await file.write(hostOffset(3 * GAP), bytes);
      const runs = await runsOf(file, 3 * GAP + (1 << 16));
      assert.deepEqual(
        runs.map(({ hole }) => hole),
        [false, true, false],
      );
      assert.ok((runs[0]?.end ?? GAP) < GAP, 'the hole begins where the bytes end');
    },
  },
  {
    id: 'runs/discarded-is-a-hole',
    because: 'what was given back takes no space, and need not be copied',
    needs: [...MAKES_FILES, 'discard', 'holes'],
    run: async (subject, context) => {
      await using file = await createWith(subject, nonZeroBytes(context, 3 * GAP));
      assert.equal(await isHole(file, GAP), false, 'before');
      await file.discard(rangeAt(GAP, GAP));
      assert.equal(await isHole(file, GAP), true, 'after');
      assert.equal(await isHole(file, 2 * GAP), false, 'behind it');
    },
  },
];
