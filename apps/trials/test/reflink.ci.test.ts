import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { downfoldJson } from '../src/tools/cli.ts';
import { everyFileSystem } from '../src/tools/file-system.ts';
import { must } from '../src/tools/process.ts';
import { checkByQemu, qemuIsHere, sameByQemu } from '../src/tools/qemu.ts';

// Where the file system can, a commit shares blocks and copies none: the plan says so, and the kernel, asked where the bytes of base lie.
const MIB = 2 ** 20;
const SHARING: ReadonlySet<string> = new Set(['xfs', 'btrfs']);

/** base <- mid <- top: 8 MiB in each of mid and top go to base, half of them over what it has, and a piece that ends inside a cluster. */
async function makeChain(directory: string): Promise<string> {
  await mkdir(directory);
  const image = (name: string, below: string | null): Promise<string> => {
    const onto = below === null ? [] : ['-b', below, '-F', 'qcow2'];
    const args = ['create', '-q', '-f', 'qcow2', ...onto, name, '64M'];
    return must('qemu-img', args, { cwd: directory });
  };
  const write = (name: string, ...commands: string[]): Promise<string> =>
    must('qemu-io', ['-f', 'qcow2', ...commands.flatMap((one) => ['-c', one]), name], {
      cwd: directory,
    });
  await image('base.qcow2', null);
  await write('base.qcow2', 'write -q -P 1 0 12M');
  await image('mid.qcow2', 'base.qcow2');
  await write('mid.qcow2', 'write -q -P 2 8M 8M');
  await image('top.qcow2', 'mid.qcow2');
  await write('top.qcow2', 'write -q -P 3 30M 8M', 'write -q -P 4 50M 777');
  const view = join(directory, 'view');
  const top = join(directory, 'top.qcow2');
  await must('qemu-img', ['convert', '-f', 'qcow2', '-O', 'raw', top, view]);
  return view;
}

/** Bytes of a file that other files share: FIEMAP, by e2fsprogs. */
async function sharedBytes(path: string): Promise<number> {
  await must('sync', [path]);
  let blocks = 0;
  for (const line of (await must('filefrag', ['-b4096', '-v', path])).split('\n')) {
    const extent = /^ *\d+: .*: +(\d+): .*\bshared\b/.exec(line);
    if (extent !== null) blocks += Number(extent[1]);
  }
  return blocks * 4096;
}

describe.skipIf(!qemuIsHere())('a commit by sharing blocks', () => {
  test('on each file system, with native calls and without', async () => {
    await using open = await everyFileSystem();
    for (const { path, kind } of open.all) {
      for (const native of ['1', '0']) {
        const directory = join(path, `native-${native}`);
        const view = await makeChain(directory);
        const [base, top] = [join(directory, 'base.qcow2'), join(directory, 'top.qcow2')];
        const env = { DOWNFOLD_NATIVE: native };
        const args = ['commit', '-f', 'qcow2', '-d', '-b', base, top];
        const plan = await downfoldJson<{ readonly shares: readonly string[] }>(
          [...args, '--dry-run'],
          { env },
        );
        await downfoldJson(args, { env });
        expect(await sameByQemu(base, 'qcow2', view), kind).toBe('');
        expect(await checkByQemu(base), kind).toBe('');
        const shares = native === '1' && SHARING.has(kind);
        const shared = await sharedBytes(base);
        if (kind.startsWith('here')) continue;
        expect(plan.shares.length, `${kind}, plan`).toBe(shares ? 2 : 0);
        expect(shared >= 16 * MIB, `${kind}, ${shared} bytes shared`).toBe(shares);
        if (!shares) expect(shared, kind).toBe(0);
      }
    }
  });
});
