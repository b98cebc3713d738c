import { cp, rm } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type BuiltChain, buildChain } from '../src/chains/build.ts';
import { judge } from '../src/chains/judge.ts';
import { commitByHand } from '../src/chains/reference.ts';
import { sabotageSpec, sabotages } from '../src/chains/sabotage.ts';
import { type Views, viewsBefore } from '../src/chains/views.ts';
import { qemuIsHere } from '../src/tools/qemu.ts';
import { type Scratch, scratch } from '../src/tools/scratch.ts';

// The judge of the random chains is itself on trial here: it must say nothing of a right commit (made by QEMU's tools
// alone) and must catch every way of spoiling it.
describe.skipIf(!qemuIsHere())('the judge of random chains', () => {
  let directory: Scratch;
  let chain: BuiltChain;
  let views: Views;

  beforeAll(async () => {
    directory = await scratch('judge');
    chain = await buildChain(sabotageSpec(), directory.path);
    views = await viewsBefore(chain);
    await commitByHand(chain, views);
  });
  afterAll(() => directory[Symbol.asyncDispose]());

  test('finds nothing wrong with a right commit', async () => {
    expect(await judge(chain, views)).toEqual([]);
  });

  test.each(sabotages)('catches: $name', async ({ spoil, caught }) => {
    await using saved = await scratch('judge-saved');
    await cp(directory.path, saved.path, { recursive: true });
    try {
      await spoil(chain, views);
      const problems = await judge(chain, views);
      expect(problems.map((line) => line.split(':')[0])).toContain(caught);
    } finally {
      await rm(directory.path, { recursive: true });
      await cp(saved.path, directory.path, { recursive: true });
    }
  });
});
