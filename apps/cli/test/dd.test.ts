import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { downfoldMany } from './many.ts';
import { bench } from './support.ts';

const BYTES = 100_352;

describe('dd', () => {
  it('copies the blocks that dd(1) copies', () => {
    using work = bench();
    work.must('sh', '-c', `head -c ${BYTES} /dev/urandom >x`);
    const parts = [
      '',
      'bs=1k',
      'bs=3000 count=7',
      'bs=1000 skip=3 count=20',
      'bs=1M',
      'bs=512 skip=190',
    ];
    parts.push('bs=4k skip=100', 'count=0', 'skip=1');
    const blocks = parts.map((part) => part.split(' ').filter((word) => word !== ''));
    const lines = blocks.map((words, index) => [
      'dd',
      '-f',
      'raw',
      'if=x',
      `of=o${index}`,
      ...words,
    ]);
    for (const [index, ended] of downfoldMany(work, lines).entries()) {
      expect([parts[index], ended]).toEqual([parts[index], { code: 0, stdout: '', stderr: '' }]);
      work.must('dd', 'if=x', 'of=theirs', 'status=none', ...(blocks[index] ?? []));
      const theirs = readFileSync(work.file('theirs'));
      // an image ends with a sector
      const whole = Buffer.alloc(Math.ceil(theirs.length / 512) * 512);
      theirs.copy(whole);
      const ours = readFileSync(work.file(`o${index}`));
      expect([parts[index], ours.equals(whole)]).toEqual([parts[index], true]);
    }
  });

  it('refuses what makes no sense', () => {
    using work = bench();
    work.must('truncate', '-s', '1M', 'x');
    const lines = [
      ['if=x'],
      ['of=y'],
      ['if=x', 'of=x'],
      ['if=x', 'of=y', 'bs=0'],
      ['if=x', 'of=y', 'bs=much'],
      ['if=x', 'of=y', 'seek=1'],
      ['x', 'y'],
      ['if=gone', 'of=y'],
    ].map((words) => ['dd', '-f', 'raw', ...words]);
    for (const [index, { code, stderr }] of downfoldMany(work, lines).entries())
      expect([lines[index], code, stderr]).toEqual([
        lines[index],
        1,
        expect.stringMatching(/^downfold: .*\n$/),
      ]);
    expect(Object.keys(work.digest())).toEqual(['x']);
  });
});
