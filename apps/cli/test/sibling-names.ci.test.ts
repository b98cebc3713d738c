import { describe, expect, it } from 'vitest';
import { type Bench, bench, haveQemu } from './support.ts';

/** `b/base <- b/top`, and `side`, on base as well: base reads 0x11, side 0x22 in its second 64 KiB, top 0x33 everywhere. */
function pool(side: string): Bench {
  const work = bench();
  const image = (name: string, ...io: readonly string[]): void => {
    work.must('qemu-io', '-f', 'qcow2', ...io.flatMap((one) => ['-c', one]), name);
  };
  work.must('mkdir', 'a', 'b');
  work.must('qemu-img', 'create', '-q', '-f', 'qcow2', 'b/base.qcow2', '1M');
  image('b/base.qcow2', 'write -P 0x11 0 1M');
  for (const name of ['b/top.qcow2', side])
    work.must(
      'qemu-img',
      ...['create', '-q', '-f', 'qcow2', '-b', 'base.qcow2', '-F', 'qcow2', name],
    );
  image('b/top.qcow2', 'write -P 0x33 0 1M');
  image(side, 'write -P 0x22 64k 64k');
  return work;
}

const COMMIT = ['commit', '-f', 'qcow2', '-d', 'b/top.qcow2'] as const;

// QEMU looks for a backing file beside the name that it was given, and believes an overlay's word for a format: so must who looks for siblings
describe.skipIf(!haveQemu)('a sibling', () => {
  it('that was moved away, and a link left in its place, is one', () => {
    using work = pool('b/side.qcow2');
    work.must('mv', 'b/side.qcow2', 'a/side.qcow2');
    work.must('ln', '-s', '../a/side.qcow2', 'b/side.qcow2');
    const read = ['-r', '-f', 'qcow2', '-c', 'read -P 0x11 0 64k', 'b/side.qcow2'];
    expect(work.must('qemu-io', ...read)).not.toMatch(/verification failed/);
    const before = work.downfold(...COMMIT);
    expect(before).toMatchObject({ code: 1 });
    expect(before.stderr).toMatch(/another image reads: .*a\/side\.qcow2/);
    expect(work.downfold(...COMMIT, '--keep-siblings').code).toBe(0);
    expect(work.must('qemu-io', ...read)).not.toMatch(/verification failed/);
  });

  it('is not forgotten because another image names it as raw', () => {
    using work = pool('b/side.qcow2');
    work.must(
      'qemu-img',
      ...['create', '-q', '-f', 'qcow2', '-b', 'side.qcow2', '-F', 'raw', 'b/stray.qcow2'],
    );
    const { code, stderr } = work.downfold(...COMMIT);
    expect(code).toBe(1);
    expect(stderr).toMatch(/side\.qcow2 \(an overlay says that it is raw, and it looks like qcow2/);
  });

  it('that takes base for raw cannot be kept', () => {
    using work = pool('b/side.qcow2');
    work.must('qemu-img', 'rebase', '-u', '-b', 'base.qcow2', '-F', 'raw', 'b/side.qcow2');
    const { code, stderr } = work.downfold(...COMMIT, '--keep-siblings');
    expect(code).toBe(1);
    expect(stderr).toMatch(/side\.qcow2: names '.*base\.qcow2' as a raw file/);
  });
});

it.skipIf(!haveQemu)('rebase --verify compares what it copied, and says so', () => {
  using work = pool('b/side.qcow2');
  work.must('qemu-img', 'create', '-q', '-f', 'qcow2', 'b/other.qcow2', '1M');
  const args = ['-f', 'qcow2', '-b', 'other.qcow2', '-F', 'qcow2', 'b/side.qcow2'];
  const result = work.json<{ verified: boolean; bytesCopied: number }>(
    'rebase',
    '--verify',
    ...args,
  );
  expect(result.verified).toBe(true);
  const read = ['-r', '-f', 'qcow2', '-c', 'read -P 0x11 0 64k', '-c', 'read -P 0x22 64k 64k'];
  expect(work.must('qemu-io', ...read, 'b/side.qcow2')).not.toMatch(/verification failed/);
});
