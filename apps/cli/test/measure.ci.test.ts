import { statSync } from 'node:fs';
import { caseContext, perTier } from '@downfold/compliance';
import { describe, expect, it } from 'vitest';
import { downfoldMany } from './many.ts';
import { type Bench, bench, haveQemu } from './support.ts';
import { fillHoles, makeVaried, variedOptions } from './varied-images.ts';

const seeds = Array.from({ length: perTier({ quick: 0, ci: 8, long: 300 }) }, (_, seed) => seed);

describe.skipIf(!haveQemu)('measure', () => {
  it.each(seeds)('of random image %i says what qemu-img says', (seed) => {
    using work = bench();
    const image = makeVaried(work, seed, { damaged: false });
    fillHoles(work, image);
    const { name, format } = image;
    const options = ['-o', variedOptions(seed).join(',')];
    const lines = ['--output=json', '--output=human'].flatMap((form) => [
      ['measure', '-f', format, '-O', 'raw', form, name],
      ['measure', '-f', format, '-O', 'qcow2', form, name],
      ['measure', '-f', format, '-O', 'qcow2', form, ...options, name],
      ['measure', '-O', 'qcow2', form, ...options, '--size', `${1 + seed * 1_234_567}`],
      ['measure', '-O', 'raw', form, '--size', '1000'],
      ['measure', '-O', 'qcow2', form],
      ['measure', '-O', 'qcow2', form, '--size', '1G', '-o', 'refcount_bits=3'],
      ['measure', '-O', 'qcow2', form, '--size', '1G', '-o', 'refcount_bits=much'],
      ['measure', '-O', 'qcow2', form, '--size', '1G', '-o', 'cluster_size=0'],
      ['measure', '-O', 'qcow2', form, '--size', '1G', '-o', 'cluster_size=3k'],
    ]);
    for (const [index, ours] of downfoldMany(work, lines).entries()) {
      const line = lines[index] as readonly string[];
      const theirs = work.run('qemu-img', ...line);
      expect([line.join(' '), ours.code]).toEqual([line.join(' '), theirs.code]);
      if (theirs.code !== 0) continue;
      if (line.includes('--output=human'))
        expect([line.join(' '), ours.stdout]).toEqual([line.join(' '), theirs.stdout]);
      else expect([line, JSON.parse(ours.stdout)]).toEqual([line, JSON.parse(theirs.stdout)]);
    }
  });

  it('with a backing file counts whole clusters, whatever the size of the disk', () => {
    using work = bench();
    for (const [size, cluster] of [
      ['512', '2M'],
      ['1500160', '64k'],
    ] as const) {
      work.must('qemu-img', 'create', '-q', '-f', 'qcow2', 'below', '2M');
      const over = ['create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b', 'below', 'x', size];
      work.must('qemu-img', ...over);
      const options = `backing_file=below,backing_fmt=qcow2,cluster_size=${cluster}`;
      const line = ['measure', '-O', 'qcow2', '--output=json', '-o', options, 'x'];
      const theirs = JSON.parse(work.must('qemu-img', ...line)) as unknown;
      expect(JSON.parse(work.downfold(...line).stdout)).toEqual(theirs);
    }
  });

  it.each(seeds)('of a commit of random chain %i is an upper bound, and no wild one', (seed) => {
    using work = bench();
    const { name, format, layers } = makeVaried(work, 1000 + seed, { damaged: false });
    if (layers.length < 2) return;
    const base = layers[caseContext(seed).integer(layers.length - 1)] as (typeof layers)[number];
    const ends = ['-f', format, '-b', base.name, name];
    // they would be in the way of the commit
    if (format === 'qcow2')
      for (const snapshot of work.json<{ name: string }[]>('snapshot', name))
        work.must('qemu-img', 'snapshot', '-d', snapshot.name, name);
    const lengthOf = (): number => statSync(work.file(base.name)).size;
    const { required, present, ...full } = work.json<Record<string, number>>(
      'measure',
      '--commit',
      ...ends,
    );
    expect(present).toBe(lengthOf());
    expect(work.downfold('commit', ...ends).code).toBe(0);
    const grown = lengthOf();
    expect(grown).toBeLessThanOrEqual(required as number);
    expect(required).toBeLessThanOrEqual(full['fully-allocated'] as number);
    if (base.format === 'raw') expect(grown).toBe(required);
    else expect(required).toBeLessThanOrEqual(grown + slack(work, base.name));
  });
});

/** A table for each end of each of some ten writes, and a cluster for each end of each. */
function slack(work: Bench, name: string): number {
  const info = work.json<{ 'cluster-size': number }>('info', name);
  return 40 * info['cluster-size'] + (1 << 20);
}
