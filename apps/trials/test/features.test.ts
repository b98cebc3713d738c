import { join } from 'node:path';
import { perTier } from '@downfold/compliance';
import { qcow2 } from '@downfold/qcow2';
import { fileBackend } from '@downfold/storage-file';
import { describe, expect, test } from 'vitest';
import { engine } from '../src/downfold.ts';
import { must } from '../src/tools/process.ts';
import { checkByQemu, qemuIo, qemuIsHere, viewByQemu } from '../src/tools/qemu.ts';
import { scratch } from '../src/tools/scratch.ts';

const KIB = 1024;
const SIZE = 4096 * KIB;

/** Every strategy that commits, on a base with lazy refcounts, an internal snapshot, and persistent bitmaps, judged by QEMU. */
describe.skipIf(!qemuIsHere())('a base with everything that QEMU put in it', () => {
  test.each(
    ['staged', 'copy-down', 'depth-first', 'preserve'].slice(
      0,
      perTier({ quick: 2, ci: 4, long: 4 }),
    ),
  )('%s keeps its snapshot, and its bitmaps record what was committed', async (strategy) => {
    await using dir = await scratch('features');
    const [base, top, active] = ['base', 'top', 'active'].map((name) =>
      join(dir.path, `${name}.qcow2`),
    );
    if (base === undefined || top === undefined || active === undefined) throw new Error();
    const options = 'lazy_refcounts=on,cluster_size=4k';
    await must('qemu-img', ['create', '-q', '-f', 'qcow2', '-o', options, base, `${SIZE}`]);
    await qemuIo(base, 'qcow2', ['write -P 1 0 2M']);
    await must('qemu-img', ['snapshot', '-c', 'kept', base]);
    await must('qemu-img', ['bitmap', '--add', '-g', '4096', base, 'on']);
    await must('qemu-img', ['bitmap', '--add', '--disable', base, 'off']);
    for (const [overlay, below] of [
      [top, base],
      [active, top],
    ] as const)
      await must('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', below, '-F', 'qcow2', overlay]);
    await qemuIo(top, 'qcow2', ['write -P 2 100k 300k', 'write -P 3 3M 10k']);
    await qemuIo(active, 'qcow2', ['write -P 4 200k 4k']);
    const before = await viewByQemu(active, 'qcow2');
    const wanted = await viewByQemu(top, 'qcow2');

    const commit = engine();
    const request = { file: active, format: 'qcow2', base, top, strategy };
    await commit.run(await commit.plan(request), { verify: true });

    expect(await checkByQemu(base)).toBe('');
    expect((await viewByQemu(active, 'qcow2')).equals(before)).toBe(true);
    expect((await viewByQemu(base, 'qcow2')).equals(wanted)).toBe(true);
    await using image = await qcow2.open(await fileBackend().open(base, 'read'), {
      mode: 'read',
    });
    expect(await image.bitmaps.list()).toMatchObject([
      { name: 'on', enabled: true, inconsistent: false },
      { name: 'off', enabled: false, inconsistent: false },
    ]);
    const { bits } = await image.bitmaps.content('on');
    const isSet = (byte: number): boolean =>
      (((bits[byte >>> 15] as number) >>> ((byte >>> 12) & 7)) & 1) === 1;
    for (const byte of [100 * KIB, 399 * KIB, 3072 * KIB, 3081 * KIB])
      expect(isSet(byte)).toBe(true);
    expect(isSet(2048 * KIB)).toBe(false);
    expect((await image.bitmaps.content('off')).bits.every((byte) => byte === 0)).toBe(true);
    await must('qemu-img', [
      'convert',
      '-l',
      'kept',
      '-O',
      'raw',
      base,
      join(dir.path, 'kept.raw'),
    ]);
    const kept = await viewByQemu(join(dir.path, 'kept.raw'), 'raw');
    expect(kept.subarray(0, 2048 * KIB).every((byte) => byte === 1)).toBe(true);
  });
});
