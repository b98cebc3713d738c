import { mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { absolutePath } from '../src/index.ts';

test('`..` after a link leads from where the link leads, also to what is not there yet', () => {
  const directory = realpathSync(mkdtempSync(join(tmpdir(), 'downfold-host-')));
  onTestFinished(() => rmSync(directory, { recursive: true }));
  mkdirSync(join(directory, 'there/dir'), { recursive: true });
  symlinkSync('there/dir', join(directory, 'link'));
  const at = (name: string): string => absolutePath(`${directory}/${name}`);
  expect(at('link/../new')).toBe(join(directory, 'there/new'));
  expect(at('link/..')).toBe(join(directory, 'there'));
  expect(at('link/new')).toBe(join(directory, 'link/new'));
  // nobody can open it; it is not taken for another one
  expect(at('none/../new')).toBe(`${directory}/none/../new`);
  expect(absolutePath('new')).toBe(join(process.cwd(), 'new'));
});
