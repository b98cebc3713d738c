import fs from 'node:fs';
import { join } from 'node:path';
import { openBackend, type Storage } from '@downfold/storage';
import { byteLength, hostOffset } from '@downfold/units';
import { expect, test } from 'vitest';
import { type Calls, fileBackendDriver, nodeCalls } from '../src/index.ts';
import { scratch, sharesByCopying, systemError } from './support.ts';

const BLOCK = 4096;
type Share = NonNullable<Calls['shareBlocks']>;

/** Two files of `blocks` blocks, on a file system that shares as `share` says, and what it was asked for. */
async function withSharing(
  share: Share | null,
  blocks: number,
  work: (
    target: Storage,
    source: Storage,
    asked: readonly (readonly [from: number, to: number, length: number])[],
  ) => Promise<void>,
): Promise<void> {
  await using directory = await scratch();
  const asked: [number, number, number][] = [];
  const shareBlocks: Share | null =
    share === null
      ? null
      : (source, from, target, to, length) => {
          asked.push([from, to, length]);
          share(source, from, target, to, length);
        };
  const backend = openBackend(fileBackendDriver({ ...nodeCalls, shareBlocks }));
  for (const [index, name] of ['source', 'target'].entries()) {
    const bytes = Buffer.alloc(blocks * BLOCK);
    for (let at = 0; at < bytes.length; at++) bytes[at] = 1 + index + (at % 249);
    fs.writeFileSync(join(directory.path, name), bytes);
  }
  await using source = await backend.open(join(directory.path, 'source'), 'read');
  await using target = await backend.open(join(directory.path, 'target'), 'write');
  await work(target, source, asked);
}

/** Copies pieces and compares with what the target has to hold. */
async function copied(
  target: Storage,
  source: Storage,
  parts: readonly (readonly [from: number, to: number, length: number])[],
): Promise<void> {
  const [before, bytes] = [new Uint8Array(await target.length()), new Uint8Array(64 * BLOCK)];
  await target.read(hostOffset(0), before);
  await source.read(hostOffset(0), bytes);
  const end = Math.max(before.length, ...parts.map(([, to, length]) => to + length));
  const expected = new Uint8Array(end);
  expected.set(before);
  for (const [from, to, length] of parts) expected.set(bytes.subarray(from, from + length), to);
  await target.copyFrom(
    parts.map(([from, to, length]) => ({
      source,
      from: hostOffset(from),
      to: hostOffset(to),
      length: byteLength(length),
    })),
  );
  const found = new Uint8Array(end);
  await target.read(hostOffset(0), found);
  expect(Buffer.compare(found, expected)).toBe(0);
  expect(await target.length()).toBe(end);
}

test('whole blocks are shared, what is left of them and what lies askew is copied', async () => {
  await withSharing(sharesByCopying, 8, async (target, source, asked) => {
    await copied(target, source, [
      [0, 2 * BLOCK, 2 * BLOCK],
      [2 * BLOCK, 4 * BLOCK, BLOCK + 100],
      [512, 6 * BLOCK, BLOCK],
      [4 * BLOCK, 7 * BLOCK + 512, 2 * BLOCK],
      [3 * BLOCK, 0, 100],
    ]);
    expect(asked).toEqual([
      [0, 2 * BLOCK, 2 * BLOCK],
      [2 * BLOCK, 4 * BLOCK, BLOCK],
    ]);
  });
});

test('what reaches past the end of the source is copied, with zeros', async () => {
  await withSharing(sharesByCopying, 4, async (target, source) => {
    await copied(target, source, [
      [2 * BLOCK, 0, 3 * BLOCK],
      [9 * BLOCK, 3 * BLOCK, 2 * BLOCK],
    ]);
  });
});

test('a range that cannot be shared is copied, and the next one asked for again', async () => {
  let turn = 0;
  const share: Share = (...of) => {
    if (turn++ === 0) throw systemError('EINVAL');
    sharesByCopying(...of);
  };
  await withSharing(share, 8, async (target, source, asked) => {
    await copied(target, source, [
      [0, BLOCK, BLOCK],
      [4 * BLOCK, 5 * BLOCK, 2 * BLOCK],
    ]);
    expect(asked.length).toBe(2);
  });
});

test.each(['EOPNOTSUPP', 'EXDEV', 'ENOSYS', 'ENOTTY'])(
  '%s: files that cannot share are copied, and asked once',
  async (errno) => {
    const share = (): never => {
      throw systemError(errno);
    };
    await withSharing(share, 8, async (target, source, asked) => {
      await copied(target, source, [
        [0, BLOCK, BLOCK],
        [4 * BLOCK, 5 * BLOCK, 2 * BLOCK],
      ]);
      await copied(target, source, [[BLOCK, 0, BLOCK]]);
      expect(asked.length).toBe(1);
    });
  },
);

test('without native calls everything is copied', async () => {
  await withSharing(null, 8, (target, source) => copied(target, source, [[0, BLOCK, 4 * BLOCK]]));
});

test.each([
  ['EIO', 'STORAGE_IO'],
  ['ENOSPC', 'STORAGE_NO_SPACE'],
  ['EDQUOT', 'STORAGE_NO_SPACE'],
] as const)(
  '%s is an error with file, call and byte, not a reason to copy',
  async (errno, code) => {
    const share = (): never => {
      throw systemError(errno);
    };
    await withSharing(share, 8, async (target, source) => {
      const piece = {
        source,
        from: hostOffset(0),
        to: hostOffset(BLOCK),
        length: byteLength(BLOCK),
      };
      await expect(target.copyFrom([piece])).rejects.toMatchObject({
        code,
        details: { file: target.label, call: 'ioctl', errno, offset: BLOCK },
      });
    });
  },
);

test.runIf(process.platform === 'linux')('the system is asked on Linux: koffi is installed', () => {
  expect(nodeCalls.shareBlocks).not.toBeNull();
});

test.each([
  ['EINVAL', true],
  ['EOPNOTSUPP', false],
  ['EXDEV', false],
  ['EPERM', false],
] as const)(
  'whether blocks will be shared is asked for a range that cannot be: %s, %s',
  async (errno, answer) => {
    await using directory = await scratch();
    const [from, to] = [join(directory.path, 'from'), join(directory.path, 'to')];
    for (const path of [from, to]) fs.writeFileSync(path, path);
    const shareBlocks: Share = (_source, at, _target, where, length) => {
      expect(at).toBeGreaterThan(2 ** 50);
      expect([at % BLOCK, where % BLOCK, length]).toEqual([1, 1, 1]);
      throw systemError(errno);
    };
    const backend = fileBackendDriver({ ...nodeCalls, shareBlocks });
    expect(await backend.sharesBlocks(from, to)).toBe(answer);
    expect(
      await fileBackendDriver({ ...nodeCalls, shareBlocks: null }).sharesBlocks(from, to),
    ).toBe(false);
  },
);

test('whether blocks will be shared: an error is one, with its file', async () => {
  await using directory = await scratch();
  const path = join(directory.path, 'from');
  fs.writeFileSync(path, 'bytes');
  const shareBlocks = (): never => {
    throw systemError('EIO');
  };
  const backend = fileBackendDriver({ ...nodeCalls, shareBlocks });
  await expect(backend.sharesBlocks(path, path)).rejects.toMatchObject({
    code: 'STORAGE_IO',
    details: { file: path, call: 'ioctl' },
  });
  await expect(backend.sharesBlocks(path, `${path}-none`)).rejects.toMatchObject({
    code: 'STORAGE_NOT_FOUND',
  });
});
