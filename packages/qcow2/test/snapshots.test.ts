import { readFileSync } from 'node:fs';
import { caseContext } from '@downfold/compliance';
import { MemoryDisk } from '@downfold/storage-memory';
import { byteLength, guestOffset } from '@downfold/units';
import { describe, expect, test } from 'vitest';
import {
  dump,
  haveQemu,
  load,
  openOn,
  qemuCheck,
  range,
  readAll,
  run,
  sameByQemu,
  scratch,
  soundByQemu,
} from './support.ts';

const KIB = 1024;
const plain = { fill: null };

/** Internal snapshots that QEMU took: Downfold writes beside them, and QEMU finds them intact. */
describe.skipIf(!haveQemu)('internal snapshots', () => {
  test.each([
    ['refcount_bits=16', 1],
    ['refcount_bits=2', 1],
    // two snapshots and the disk: as much as two bits count
    ['refcount_bits=2', 2],
    ['refcount_bits=4', 14],
    ['refcount_bits=64', 2],
    ['cluster_size=512', 2],
    ['cluster_size=2M', 1],
    ['extended_l2=on', 2],
    ['compat=0.10', 2],
  ])('with %s, %i of them: writes leave each as it was', async (option, count) => {
    using dir = scratch();
    const path = dir.path('image.qcow2');
    const size = 640 * KIB;
    const { bytes, integer } = caseContext(count);
    run('qemu-img', 'create', '-q', '-f', 'qcow2', '-o', option, path, String(size));
    const model = new Uint8Array(size);
    const views: Uint8Array[] = [];
    for (let snapshot = 0; snapshot < count; snapshot++) {
      const at = (64 * KIB * snapshot) % (512 * KIB);
      run('qemu-io', '-f', 'qcow2', '-c', `write -P ${1 + snapshot} ${at} 96k`, path);
      model.fill(1 + snapshot, at, at + 96 * KIB);
      run('qemu-img', 'snapshot', '-c', `s${snapshot}`, path);
      views.push(model.slice());
    }
    const disk = new MemoryDisk();
    await load(disk, '/image', path);
    {
      await using image = await openOn(disk, '/image', 'write');
      expect(Buffer.compare(await readAll(image), model)).toBe(0);
      for (let turn = 0; turn < 12; turn++) {
        const at = integer(size - 40_000);
        const length = 1 + integer(40_000);
        const kind = turn % 4;
        if (kind === 0) {
          await image.writeZeroes(range(at, length), plain);
          model.fill(0, at, at + length);
        } else if (kind === 1) {
          const { allocationGranularity: unit } = image.geometry;
          await image.deallocate(range(at, length));
          const from = Math.ceil(at / unit) * unit;
          const to = Math.floor((at + length) / unit) * unit;
          if (to > from) model.fill(0, from, to);
        } else {
          const source = bytes(length);
          await image.write(guestOffset(at), source, plain);
          model.set(source, at);
        }
        if (turn % 5 === 4) await image.flush();
      }
      await image.flush();
      expect(await image.check()).toMatchObject({ corruptions: 0, leaks: 0 });
    }
    dump(disk, '/image', path);
    soundByQemu(path);
    sameByQemu(path, model);
    for (const [snapshot, view] of views.entries()) {
      run(
        'qemu-img',
        'convert',
        '-l',
        `s${snapshot}`,
        '-f',
        'qcow2',
        '-O',
        'raw',
        path,
        dir.path('view.raw'),
      );
      expect(Buffer.compare(readFileSync(dir.path('view.raw')), view), `snapshot ${snapshot}`).toBe(
        0,
      );
    }
    for (const snapshot of views.keys()) run('qemu-img', 'snapshot', '-d', `s${snapshot}`, path);
    expect(qemuCheck(path)).toMatchObject({ 'check-errors': 0 });
    expect([qemuCheck(path)['corruptions'] ?? 0, qemuCheck(path)['leaks'] ?? 0]).toEqual([0, 0]);
  });

  test('an image of one-bit refcounts has none, and is written all the same', async () => {
    using dir = scratch();
    const path = dir.path('image.qcow2');
    run('qemu-img', 'create', '-q', '-f', 'qcow2', '-o', 'refcount_bits=1', path, '1M');
    run('qemu-io', '-f', 'qcow2', '-c', 'write -P 5 0 512k', path);
    expect(() => run('qemu-img', 'snapshot', '-c', 'one', path)).toThrow();
    // QEMU leaves a leak when it fails
    const { leaks } = qemuCheck(path);
    const disk = new MemoryDisk();
    await load(disk, '/image', path);
    {
      await using image = await openOn(disk, '/image', 'write');
      await image.write(guestOffset(400 * KIB), new Uint8Array(300 * KIB).fill(6), plain);
      await image.flush();
    }
    dump(disk, '/image', path);
    const check = qemuCheck(path);
    expect([check['corruptions'] ?? 0, check['leaks']]).toEqual([0, leaks]);
  });

  test('a version 2 image with one cannot be grown, a version 3 image can', async () => {
    for (const compat of ['0.10', '1.1']) {
      using dir = scratch();
      const path = dir.path('image.qcow2');
      run('qemu-img', 'create', '-q', '-f', 'qcow2', '-o', `compat=${compat}`, path, '1M');
      run('qemu-io', '-f', 'qcow2', '-c', 'write -P 5 0 64k', path);
      run('qemu-img', 'snapshot', '-c', 'one', path);
      const disk = new MemoryDisk();
      await load(disk, '/image', path);
      {
        await using image = await openOn(disk, '/image', 'write');
        const growing = image.resize(byteLength(2 * 2 ** 30), plain);
        if (compat === '0.10')
          await expect(growing).rejects.toMatchObject({ code: 'IMAGE_UNSUPPORTED' });
        else await growing;
      }
      dump(disk, '/image', path);
      run('qemu-img', 'check', '-q', path);
      run('qemu-img', 'snapshot', '-a', 'one', path);
      const info = JSON.parse(run('qemu-img', 'info', '--output=json', path)) as Record<
        string,
        unknown
      >;
      expect(info['virtual-size']).toBe(1 << 20);
    }
  });
});
