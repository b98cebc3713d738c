import { describe, expect, it } from 'vitest';
import { cases, noBlock } from './spoil.ts';
import { bench, haveQemu, makeChain } from './support.ts';

describe('check -r', () => {
  const all = [...cases, ['no refcount block', noBlock, 2]] as const;
  const repairs = all.flatMap(([name, spoil]) => [
    [name, 'leaks', spoil] as const,
    [name, 'all', spoil] as const,
  ]);

  it.skipIf(!haveQemu).each(repairs)(
    '%s, %s: says what qemu-img says, and leaves nothing it would find',
    async (name, scope, spoil) => {
      using work = bench();
      await makeChain(work);
      spoil(work);
      for (const copy of ['theirs.qcow2', 'json.qcow2']) work.must('cp', 'base.qcow2', copy);
      const view = work.must(
        'qemu-img',
        'convert',
        '-f',
        'qcow2',
        '-O',
        'raw',
        'base.qcow2',
        'before.raw',
      );
      expect(view).toBe('');
      const args = ['check', '-f', 'qcow2', '-r', scope];
      const theirs = work.run('qemu-img', ...args, 'theirs.qcow2');
      const ours = work.downfold(...args, 'base.qcow2');
      const json = work.downfold(...args, '--output', 'json', 'json.qcow2');
      // QEMU refuses to lower refcounts beside one that is zero; Downfold lowers them, and says what is left
      const rest =
        scope === 'leaks' && ['a corruption', 'both', 'no refcount block'].includes(name);
      expect(ours.code).toBe(rest ? 2 : theirs.code);
      expect(json.code).toBe(ours.code);
      if (ours.code !== 1 && !rest) {
        const withoutEnd = (text: string): string => text.replace(/Image end offset: .*/, '');
        expect(withoutEnd(ours.stdout)).toBe(withoutEnd(theirs.stdout));
        const {
          'image-end-offset': _,
          filename,
          ...report
        } = JSON.parse(json.stdout) as Record<string, unknown>;
        work.must('cp', 'json.qcow2', 'again.qcow2');
        expect([report['corruptions'], report['leaks'], filename]).toEqual([
          undefined,
          undefined,
          'json.qcow2',
        ]);
      }
      if (scope === 'all') work.must('qemu-img', 'check', '-q', '-f', 'qcow2', 'base.qcow2');
      work.must('qemu-img', 'compare', '-F', 'raw', 'base.qcow2', 'before.raw');
    },
  );
});
