import { globSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

/** Every path that a page of the documentation names exists; a renamed file takes its mention along. */
const root = fileURLToPath(new URL('..', import.meta.url));
const pages = ['README.md', 'CONTRIBUTING.md', ...globSync('docs/*.md', { cwd: root })].sort();

/** What a page names, as glob patterns below the workspace; `NAME` stands for any name. */
function pathsIn(page: string): readonly string[] {
  const text = readFileSync(join(root, page), 'utf8');
  const links = [...text.matchAll(/\]\((?!https?:)([^)#]+)[^)]*\)/g)].map(([, to = '']) =>
    join(dirname(page), to),
  );
  const spoken = text.split('\n').flatMap((line) => {
    let folder = '';
    return [...line.matchAll(/`([^`\s]+)`/g)].flatMap(([, name = '']) => {
      // a file name alone lies beside the path before it
      if (folder !== '' && /^[\w-]+\.ts$/.test(name)) return [join(folder, name)];
      if (!/^(apps|docs|packages|tools|\.ci|\.changeset)\//.test(name)) return [];
      folder = dirname(name);
      return [name];
    });
  });
  return [...new Set([...links, ...spoken])].map((path) => path.replaceAll('NAME', '*'));
}

const named = pages.flatMap((page) => pathsIn(page).map((path) => ({ page, path })));

it.each(named)('$page names $path, which exists', ({ path }) => {
  expect(globSync(path, { cwd: root })).not.toEqual([]);
});

it('finds what it is to check', () => {
  expect(pathsIn('docs/architecture.md')).toContain('packages/qcow2/src/barriers.ts');
  expect(pathsIn('docs/architecture.md')).toContain('docs/glossary.md');
});
