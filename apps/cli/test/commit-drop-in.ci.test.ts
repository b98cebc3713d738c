import { caseContext, perTier } from '@downfold/compliance';
import { describe, expect, it } from 'vitest';
import { complaints, IDENTICAL } from './qemu-pool.ts';
import { type Bench, bench, haveQemu } from './support.ts';
import { makeVaried, type VariedImage } from './varied-images.ts';

type Layer = VariedImage['layers'][number];

/** What `qemu-img compare` says of the disks of two images, but for their sizes. */
function compare(work: Bench, a: Layer, b: Layer): string {
  const formats = ['-f', a.format, '-F', b.format];
  const { stdout, stderr } = work.run('qemu-img', 'compare', ...formats, a.name, b.name);
  return (stdout + stderr).replace('Warning: Image size mismatch!\n', '');
}

/** Bytes that the leaf itself holds. */
function heldBy(work: Bench, { name, format }: Layer): number {
  const map = JSON.parse(work.must('qemu-img', 'map', '-f', format, '--output=json', name));
  return (map as readonly { depth: number; length: number; present: boolean }[])
    .filter(({ depth, present }) => depth === 0 && present)
    .reduce((sum, { length }) => sum + length, 0);
}

/** A copy of all layers in another directory. */
function copied(work: Bench, { layers }: VariedImage, to: string): readonly Layer[] {
  work.must('mkdir', '-p', to);
  return layers.map(({ name, format }) => {
    const copy = `${to}/${name.replace(/.*\//, '')}`;
    work.must('cp', '--sparse=always', name, copy);
    return { name: copy, format };
  });
}

describe.skipIf(!haveQemu)('commit and rebase beside qemu-img', () => {
  const seeds = Array.from({ length: perTier({ quick: 0, ci: 4, long: 200 }) }, (_, seed) => seed);

  it.each(seeds)('commit of random chain %i', (seed) => {
    using work = bench();
    const image = makeVaried(work, 2000 + seed, { damaged: false });
    const draw = caseContext(seed);
    const deep = image.layers[draw.integer(Math.max(1, image.layers.length - 1))] as Layer;
    // as the overlay names it: qemu-img finds no base by its path from elsewhere
    const base = deep.name.replace(/.*\//, '');
    for (const [index, flags] of [
      [],
      ['-d', '-p'],
      ['-q', '-t', 'none'],
      ['-b', base, '-r', '1G'],
    ].entries()) {
      const [ours, theirs] = ['ours', 'theirs'].map((name) =>
        copied(work, image, `${name}${index}`),
      ) as [readonly Layer[], readonly Layer[]];
      const line = ['commit', '-f', image.format, ...flags];
      const [our, their] = [ours.at(-1) as Layer, theirs.at(-1) as Layer];
      const theirEnd = work.run('qemu-img', ...line, their.name);
      const ourEnd = work.downfold(...line, our.name);
      expect([line, ourEnd.code]).toEqual([line, theirEnd.code]);
      if (theirEnd.code !== 0) continue;
      const first = /Image committed\.\n/.exec(theirEnd.stdout)?.[0] ?? '';
      expect(ourEnd.stdout.replace(/^ {2}.*\n/gm, '')).toBe(first);
      // the receiver, and what the leaf shows
      const at = flags.includes('-b') ? image.layers.indexOf(deep) : image.layers.length - 2;
      for (const layer of [at, image.layers.length - 1])
        expect([line, compare(work, ours[layer] as Layer, theirs[layer] as Layer)]).toEqual([
          line,
          IDENTICAL,
        ]);
      expect([line, compare(work, our, image.layers.at(-1) as Layer)]).toEqual([line, IDENTICAL]);
      const empties = !flags.includes('-d') && !flags.includes('-b');
      expect([line, heldBy(work, our) === 0]).toEqual([line, empties || heldBy(work, their) === 0]);
      const qcow2 = ours.filter(({ format }) => format === 'qcow2').map(({ name }) => name);
      expect(complaints(work, ...qcow2)).toEqual([]);
    }
  });
});
