import type { ImageFormat } from '@downfold/image';
import type { Storage } from '@downfold/storage';
import { memoryBackend } from '@downfold/storage-memory';
import { describe, expect, it } from 'vitest';
import { openChain } from '../src/index.ts';
import { diskOf, environmentOn, expectRefusal, plain } from './support.ts';
import { toyFormat } from './toy-format.ts';

/** A toy whose images name a data file. */
function naming(name: string, opened: Storage[] = []): ImageFormat {
  const toy = toyFormat();
  return {
    ...toy,
    open: async (storage, options) => {
      if (options.openDataFile === undefined) throw new Error('no data file may be opened');
      opened.push(await options.openDataFile(name, options.mode));
      return toy.open(storage, options);
    },
  };
}

describe('the data file that an image names', () => {
  const disk = diskOf({ '/pool/image': plain, '/pool/data': plain, '/secret': plain });
  const opening = async (
    name: string,
    policy: Parameters<typeof environmentOn>[1],
    opened: Storage[] = [],
  ): Promise<unknown> => {
    const environment = environmentOn(await disk, policy);
    const formats = [naming(name, opened)];
    return openChain('/pool/image', 'toy', { ...environment, formats });
  };
  const allowed = { policy: { allowDataFile: true } };

  it('is not opened, unless the policy allows it', async () => {
    await expect(opening('data', {})).rejects.toThrow('no data file may be opened');
  });

  it.each(['data', './data', '/pool/data', 'file:data'])(
    '%s is opened when it does',
    async (name) => {
      const opened: Storage[] = [];
      await opening(name, allowed, opened);
      const expected = await memoryBackend(await disk).open('/pool/data', 'read');
      expect(opened.map(({ identity }) => identity)).toEqual([expected.identity]);
    },
  );

  it('lies where backing files may', async () => {
    for (const name of ['../secret', '/secret'])
      await expectRefusal(
        opening(name, allowed),
        'CHAIN_OUTSIDE_ROOTS',
        '/pool/image',
        'data file',
      );
    const roots = { policy: { allowDataFile: true, roots: ['/'] } };
    await opening('/secret', roots);
  });

  it.each(['nbd://localhost/disk', 'json:{}', '', 'a\nb'])(
    '%s is refused by its name',
    async (name) => {
      await expectRefusal(
        opening(name, allowed),
        'CHAIN_FORBIDDEN_NAME',
        '/pool/image',
        'data file',
      );
    },
  );

  it('is there, and another file than the image', async () => {
    await expectRefusal(opening('gone', allowed), 'CHAIN_MISSING', '/pool/image', 'data file');
    await expectRefusal(opening('./image', allowed), 'CHAIN_LOOP', '/pool/image');
  });
});
