import { writeFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { type Bench, backingOf, bench, diskOf, makeChain } from './support.ts';

const MIDDLE = ['-b', 'base.qcow2', '--top', 'top.qcow2', 'active.qcow2'];
const HEADER_ONLY = Buffer.from('QFI\xfb\0\0\0\x03', 'latin1');

/** A chain, beside it an image of which only the start is left, one that names a protocol, and files that are no images. */
async function crowded(): Promise<Bench> {
  const work = bench();
  await makeChain(work);
  writeFileSync(work.file('torn.qcow2'), HEADER_ONLY);
  const args = ['-u', '-b', 'nbd:localhost:10809', '-F', 'raw', 'remote.qcow2', '1M'];
  expect(work.downfold('create', '-q', ...args).code).toBe(0);
  writeFileSync(work.file('notes.txt'), 'QFI is the magic of qcow2\n');
  writeFileSync(work.file('archive.gz'), Buffer.from([0x1f, 0x8b, 8, 0, 0, 0, 0, 0]));
  writeFileSync(work.file('empty.qcow2'), '');
  return work;
}

describe('a commit beside images that cannot be read', () => {
  it('is refused: each is named with the reason, and nothing changes', async () => {
    using work = await crowded();
    const before = work.digest();
    for (const more of [[], ['--dry-run'], ['--strategy', 'auto'], ['--invalidate-siblings']]) {
      const { code, stdout, stderr } = work.downfold('commit', ...more, ...MIDDLE);
      expect([more, code, stdout]).toEqual([more, 1, '']);
      expect(stderr).toMatch(/^downfold: [^\n]*--ignore-unreadable\)\n$/);
      expect(stderr).toMatch(/\/remote\.qcow2 \([^)]*names a protocol/);
      expect(stderr).toMatch(/\/torn\.qcow2 \(ends inside the header/);
      expect(stderr).not.toMatch(/notes|archive|empty/);
    }
    const { stdout } = work.downfold('commit', '--output', 'json', ...MIDDLE);
    expect(JSON.parse(stdout)).toMatchObject({
      error: {
        class: 'COMMIT_UNREADABLE',
        details: {
          images: [work.file('remote.qcow2'), work.file('torn.qcow2')],
          codes: ['CHAIN_FORBIDDEN_NAME', 'IMAGE_CORRUPT'],
        },
      },
    });
    expect(work.digest()).toEqual(before);
  });

  it.each(['\xffsib.qcow2', 'd\xff/sib.qcow2'])(
    'is refused: one whose name is no UTF-8 cannot even be asked (%j)',
    async (latin) => {
      using work = bench();
      await makeChain(work);
      // Node's names are UTF-8: python's surrogates are the bytes
      const name = [...latin].map((c) => (c === '\xff' ? '\\udcff' : c)).join('');
      const script = `import os; n='${name}'; os.makedirs(os.path.dirname(n) or '.', exist_ok=True); os.link('mid.qcow2', n)`;
      work.must('/usr/bin/python3', '-c', script);
      const before = await diskOf(work, 'base.qcow2');
      const { code, stderr } = work.downfold('commit', '--invalidate-siblings', ...MIDDLE);
      expect([code, stderr]).toEqual([1, expect.stringContaining('no UTF-8')]);
      expect(await diskOf(work, 'base.qcow2')).toBe(before);
      expect(work.downfold('commit', '-q', '--ignore-unreadable', ...MIDDLE).code).toBe(0);
    },
  );

  it('is done when they are elsewhere', async () => {
    using work = await crowded();
    work.must('sh', '-c', 'mkdir elsewhere && mv torn.qcow2 remote.qcow2 elsewhere');
    expect(work.downfold('commit', '-q', ...MIDDLE).code).toBe(0);
  });

  it('is done with --ignore-unreadable, and says so in the plan and in the result', async () => {
    using work = await crowded();
    const top = await diskOf(work, 'top.qcow2');
    const ignoring = ['commit', '--ignore-unreadable', ...MIDDLE];
    const { code, stdout } = work.downfold(...ignoring, '--dry-run');
    expect(code).toBe(0);
    for (const name of ['remote', 'torn'])
      expect(stdout).toMatch(new RegExp(`\n${name}\\.qcow2 may read through what changes: `));
    const unreadable = [
      { path: work.file('remote.qcow2'), code: 'CHAIN_FORBIDDEN_NAME' },
      { path: work.file('torn.qcow2'), code: 'IMAGE_CORRUPT' },
    ];
    expect(work.json(...ignoring, '--dry-run')).toMatchObject({ unreadable });
    const done = work.downfold(...ignoring);
    expect(done.code).toBe(0);
    expect(done.stdout).toMatch(/\n {2}torn\.qcow2 could not be read, and may have read /);
    expect(await backingOf(work, 'active.qcow2')).toBe('base.qcow2');
    expect(await diskOf(work, 'base.qcow2')).toBe(top);
  });

  it('that was planned accepts those that it names, and no others', async () => {
    using work = await crowded();
    const ignoring = ['commit', '--ignore-unreadable', '--plan-out', 'plan.json', ...MIDDLE];
    expect(work.downfold(...ignoring).code).toBe(0);
    const run = ['commit', '--plan', 'plan.json'];
    const { code, stderr } = work.downfold(...run, '--ignore-unreadable', 'active.qcow2');
    expect([code, stderr]).toEqual([1, expect.stringMatching(/^downfold: --plan settles /)]);
    work.must('cp', 'torn.qcow2', 'more.qcow2');
    const other = work.downfold(...run, 'active.qcow2');
    expect([other.code, other.stderr]).toEqual([
      1,
      expect.stringMatching(/more\.qcow2.*plan again/),
    ]);
    work.must('rm', 'more.qcow2');
    expect(work.downfold(...run, 'active.qcow2').code).toBe(0);
  });

  it('on a file elsewhere is done when its directory is allowed', async () => {
    using work = bench();
    await makeChain(work);
    work.must('mkdir', 'far');
    using far = bench();
    await makeChain(far);
    const args = ['-u', '-b', far.file('base.qcow2'), '-F', 'qcow2', 'guest.qcow2', '8M'];
    expect(work.downfold('create', '-q', ...args).code).toBe(0);
    expect(work.downfold('commit', ...MIDDLE).stderr).toContain('--allow the directory');
    expect(work.downfold('commit', '-q', '--allow', far.path, ...MIDDLE).code).toBe(0);
  });

  it('that names base by a hard link elsewhere would be stranded', async () => {
    using work = bench();
    await makeChain(work);
    using far = bench();
    far.must('ln', work.file('base.qcow2'), 'hard.qcow2');
    const args = ['-u', '-b', far.file('hard.qcow2'), '-F', 'qcow2', 'guest.qcow2', '8M'];
    expect(work.downfold('create', '-q', ...args).code).toBe(0);
    const { code, stdout } = work.downfold('commit', '--output', 'json', ...MIDDLE);
    expect(code).toBe(1);
    expect(JSON.parse(stdout)).toMatchObject({
      error: { class: 'COMMIT_STRANDS', details: { images: [work.file('guest.qcow2')] } },
    });
  });
});
