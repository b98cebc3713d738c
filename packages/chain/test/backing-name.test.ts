import { memoryBackend } from '@downfold/storage-memory';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { backingName, resolveBacking } from '../src/index.ts';
import { diskOf, plain } from './support.ts';

it.each([
  ['/p/active', '/p/base', 'top', 'base'],
  ['/p/active', '/p/base', '/p/top', '/p/base'],
  ['/p/active', '/p/base', 'file:top', 'base'],
  ['/p/active', '/p/base', 'file:/p/top', '/p/base'],
  ['/p/sub/active', '/p/base', 'top', '../base'],
  ['/p/active', '/p/sub/base', './top', 'sub/base'],
  ['/p/active', '/p/a:b', 'top', './a:b'],
  ['/p/active', '/p/sub/a:b', 'top', 'sub/a:b'],
])('%s refers to %s, after %s, by %s', (from, to, previous, name) => {
  expect(backingName(from, to, previous)).toBe(name);
});

it('whatever the files are called, the new name leads to the new backing file', async () => {
  const part = fc.string({
    minLength: 1,
    maxLength: 6,
    unit: fc.constantFrom(...'ab.: :jsonfile'),
  });
  const directory = fc.array(part, { maxLength: 3 });
  await fc.assert(
    fc.asyncProperty(
      directory,
      directory,
      part,
      fc.boolean(),
      async (one, other, name, relative) => {
        const path = (parts: readonly string[], last: string): string =>
          ['', ...parts, last].join('/');
        fc.pre([...one, ...other, name].every((each) => each !== '.' && each !== '..'));
        const [from, to] = [path(one, 'overlay'), path(other, name)];
        fc.pre(!from.startsWith(`${to}/`) && from !== to);
        const disk = await diskOf({ [to]: plain });
        const reference = { name: backingName(from, to, relative ? 'old' : '/old'), format: 'toy' };
        const found = await resolveBacking(reference, from, ['/'], memoryBackend(disk));
        expect(found.path).toBe(to);
      },
    ),
  );
});
