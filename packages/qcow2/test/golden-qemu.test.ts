import { writeFileSync } from 'node:fs';
import { currentTier } from '@downfold/compliance';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { changed, writable } from './golden/changed.ts';
import { bytesOf, factsOf, GOLDEN_PATH, goldenImages } from './golden/library.ts';
import { makeImages } from './golden/make.ts';
import type { GoldenFacts } from './golden/manifest.ts';
import { factsByQemu, sha256 } from './golden/qemu-facts.ts';
import { dump, haveQemu, scratch } from './support.ts';

/** The manifest held to the QEMU that is installed, and QEMU as the judge of golden images that Downfold wrote. */
describe.skipIf(!haveQemu)('golden images, judged by the QEMU that is here', () => {
  let directory: ReturnType<typeof scratch>;

  beforeAll(() => {
    directory = scratch();
    for (const image of goldenImages) writeFileSync(directory.path(image.name), bytesOf(image));
  });
  afterAll(() => directory[Symbol.dispose]());

  test.each(goldenImages.filter(({ facts }) => facts !== null))('$name', (image) => {
    const found = factsByQemu(directory.path('.'), image);
    expect(withoutSpecific(found)).toEqual(withoutSpecific(factsOf(image)));
    // newer versions say more
    expect(found.info.specific ?? {}).toMatchObject(factsOf(image).info.specific ?? {});
  });

  test.each(writable)('$name, changed by Downfold', async (image) => {
    const seed = 2;
    const name = `changed-${image.name}`;
    const { disk, model } = await changed(image, seed);
    dump(disk, GOLDEN_PATH, directory.path(name));
    const { view, snapshots, check } = factsByQemu(directory.path('.'), { ...image, name });
    const before = factsOf(image);
    expect(view, `what QEMU reads (seed ${seed})`).toBe(sha256(model));
    expect(snapshots, 'its snapshots').toEqual(before.snapshots);
    expect([check?.corruptions, check?.leaks]).toEqual([0, before.check?.leaks]);
  });

  test.skipIf(currentTier() === 'quick')('the recipes make the same disks again', () => {
    using again = scratch();
    for (const { name, facts } of makeImages(again.path('.'))) {
      const image = goldenImages.find((golden) => golden.name === name);
      expect([facts?.view, facts?.layer, facts?.map], name).toEqual([
        image?.facts?.view,
        image?.facts?.layer,
        image?.facts?.map,
      ]);
    }
  });
});

function withoutSpecific({ info, ...facts }: GoldenFacts): unknown {
  const { specific: _, ...others } = info;
  return { ...facts, info: others };
}
