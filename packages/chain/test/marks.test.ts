import { type Image, ImageError, type ImageMark } from '@downfold/image';
import type { MemoryDisk } from '@downfold/storage-memory';
import { memoryBackend, record } from '@downfold/storage-memory';
import { hostOffset } from '@downfold/units';
import { describe, expect, it } from 'vitest';
import { markPath, openChain, readMark, scanPool, writeMark } from '../src/index.ts';
import { diskOf, environmentOn, expectRefusal, over, plain } from './support.ts';
import { toyFormat } from './toy-format.ts';

const MARK: ImageMark = { state: 'invalid', job: 'j1', date: '2026-01-02T03:04:05Z' };

/** An image of `/p/a` that has no place for a mark, or one in memory. Calls `onFlush` when it is flushed. */
async function openA(disk: MemoryDisk, place: boolean, onFlush = (): void => {}): Promise<Image> {
  const storage = await memoryBackend(disk).open('/p/a', 'read');
  const image: Image & { mark: ImageMark | null } = await toyFormat().open(storage, {
    mode: 'read',
  });
  return Object.assign(image, {
    setMark: async (mark: ImageMark | null) => {
      if (!place) throw new ImageError('IMAGE_UNSUPPORTED', 'no place for a mark');
      image.mark = mark;
    },
    flush: async () => onFlush(),
  });
}

async function writeText(disk: MemoryDisk, path: string, text: string): Promise<void> {
  await using storage = await memoryBackend(disk).create(path, { secret: false });
  await storage.write(hostOffset(0), new TextEncoder().encode(text));
}

describe('a mark', () => {
  it('is put into the image where there is a place, and nothing beside it', async () => {
    const disk = await diskOf({ '/p/a': plain });
    const backend = memoryBackend(disk);
    await using image = await openA(disk, true);
    await writeMark(image, MARK, backend);
    expect(await readMark(image, backend)).toEqual(MARK);
    expect([...disk.names.keys()]).toEqual(['/p/a']);
    await writeMark(image, null, backend);
    expect(await readMark(image, backend)).toBeNull();
  });

  it('lies beside an image that has no place, and is taken away again', async () => {
    const disk = await diskOf({ '/p/a': plain });
    const backend = memoryBackend(disk);
    await using image = await openA(disk, false);
    // a crash left the beginning of an earlier one
    await writeText(disk, `${markPath('/p/a')}.new`, '{"sta');
    await writeMark(image, MARK, backend);
    expect(await readMark(image, backend)).toEqual(MARK);
    expect([...disk.names.keys()].sort()).toEqual(['/p/a', markPath('/p/a')]);
    await writeMark(image, { ...MARK, state: 'mixed' }, backend);
    expect(await readMark(image, backend)).toEqual({ ...MARK, state: 'mixed' });
    await writeMark(image, null, backend);
    expect([...disk.names.keys()]).toEqual(['/p/a']);
  });

  it('is not looked for beside an image that a server holds: it may give the image itself for that name', async () => {
    const disk = await diskOf({ '/p/a': plain });
    await writeText(disk, '/p/b', 'no mark');
    const backend = memoryBackend(disk);
    await using image = await openA(disk, false);
    const remote = { ...image, mark: null, data: image.data, label: 'nbd://server/a' };
    const any = { ...backend, open: () => backend.open('/p/b', 'read') };
    expect(await readMark(remote, any)).toBeNull();
    expect(await readMark(image, any)).toMatchObject({ state: 'invalid' });
  });

  it.each([
    ['inside', true],
    ['beside', false],
  ])(
    '%s an image is durable also when a process put it there that was killed',
    async (_, place) => {
      const disk = await diskOf({ '/p/a': plain });
      {
        await using image = await openA(disk, place);
        await writeMark(image, MARK, memoryBackend(disk));
      }
      const { backend, log } = record(disk);
      let flushes = 0;
      await using image = await openA(disk, place, () => flushes++);
      if (place) await image.setMark(MARK);
      await writeMark(image, MARK, backend);
      expect(flushes).toBe(1);
      expect(log.map((entry) => entry.kind)).toEqual(['flush directory']);
    },
  );

  it('does not hold for another file that has the name now', async () => {
    const disk = await diskOf({ '/p/a': plain, '/p/b': plain });
    const backend = memoryBackend(disk);
    {
      await using image = await openA(disk, false);
      await writeMark(image, MARK, backend);
    }
    disk.names.set('/p/a', disk.inodeOf('/p/b'));
    await using other = await openA(disk, false);
    expect(await readMark(other, backend)).toBeNull();
  });

  it.each([['not JSON'], ['{}'], ['null'], ['{"state":"fine","image":{"inode":"1"}}'], ['']])(
    'that cannot be understood, such as %j, keeps readers away all the same',
    async (text) => {
      const disk = await diskOf({ '/p/a': plain });
      await writeText(disk, markPath('/p/a'), text);
      await expectRefusal(
        openChain('/p/a', 'toy', environmentOn(disk)),
        'CHAIN_INVALID_IMAGE',
        '/p/a',
      );
    },
  );

  it('of other errors than a missing place is not written beside', async () => {
    const disk = await diskOf({ '/p/a': plain });
    await using image = await openA(disk, true);
    const full = Object.assign(image, {
      setMark: async () => {
        throw new ImageError('IMAGE_READ_ONLY', 'read-only');
      },
    });
    await expectRefusal(writeMark(full, MARK, memoryBackend(disk)), 'IMAGE_READ_ONLY');
    expect([...disk.names.keys()]).toEqual(['/p/a']);
  });

  it('beside an image is seen by chains and pools', async () => {
    const disk = await diskOf({ '/p/a': plain, '/p/b': over('a') });
    {
      await using image = await openA(disk, false);
      await writeMark(image, MARK, memoryBackend(disk));
    }
    const environment = environmentOn(disk);
    await expectRefusal(openChain('/p/b', 'toy', environment), 'CHAIN_INVALID_IMAGE', '/p/a');
    const { images, problems } = await scanPool(['/p'], environment);
    expect(images.map(({ path, mark }) => [path, mark])).toEqual([
      ['/p/a', MARK],
      ['/p/b', null],
    ]);
    expect(problems).toEqual([]);
  });
});

it.each([
  ['invalid', false],
  ['superseded', false],
  ['mixed', true],
] as const)(
  'an image marked %s is no leaf; below others it may be read: %s',
  async (state, below) => {
    const mark = { ...MARK, state };
    const disk = await diskOf({ '/p/a': { ...plain, mark }, '/p/b': over('a') });
    const environment = environmentOn(disk);
    await expectRefusal(openChain('/p/a', 'toy', environment), 'CHAIN_INVALID_IMAGE', state);
    const opening = openChain('/p/b', 'toy', environment);
    if (!below) return expectRefusal(opening, 'CHAIN_INVALID_IMAGE', '/p/a', state);
    await using chain = await opening;
    expect(chain.layers[0]?.facts.mark).toEqual(mark);
  },
);
