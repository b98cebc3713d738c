import { readFile } from 'node:fs/promises';
import { expect, test } from 'vitest';
import { pageOf, problemsOf, survey } from '../src/agreement/survey.ts';
import { docsPage } from '../src/tools/docs.ts';
import { qemuIsHere } from '../src/tools/qemu.ts';

test.skipIf(!qemuIsHere())(
  'QEMU and Downfold accept and refuse the same images, or somebody has said why not',
  async () => {
    const all = await survey();
    expect(all.length).toBeGreaterThanOrEqual(500);
    expect(problemsOf(all)).toEqual([]);
    // new: pnpm --filter @downfold/trials agreement --update-docs
    expect(await readFile(docsPage('hostile-images.md'), 'utf8')).toContain(pageOf(all));
  },
);
