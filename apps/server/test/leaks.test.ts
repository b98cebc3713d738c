import { qcow2 } from '@downfold/qcow2';
import { fileBackend } from '@downfold/storage-file';
import { byteLength, guestOffset } from '@downfold/units';
import { expect, it } from 'vitest';
import { Graph } from '../src/graph/graph.ts';
import { access, Bench, haveTools, MIB, makeChain } from './support.ts';

/** Leaves clusters that are counted and not referenced, as a crash between the two does. */
async function leak(bench: Bench, name: string): Promise<void> {
  const storage = await fileBackend().open(bench.file(name), 'write');
  await using image = await qcow2.open(storage, { mode: 'write' });
  const staging = await image.stage({ virtualSize: byteLength(16 * MIB), from: null, fill: null });
  await staging.write(guestOffset(15 * MIB), Buffer.alloc(MIB, 1), { fill: null });
  await staging.flush();
}

it.skipIf(!haveTools)(
  'what a crash leaked of the active layer is given back when somebody writes to it; of those below it is left alone',
  async () => {
    await using bench = new Bench();
    await makeChain(bench);
    for (const name of ['mid.qcow2', 'top.qcow2']) await leak(bench, name);
    const leaks = async (name: string): Promise<boolean> =>
      (await bench.run('qemu-img', 'check', '-U', name)).code === 3;
    expect([await leaks('mid.qcow2'), await leaks('top.qcow2')]).toEqual([true, true]);
    {
      await using graph = new Graph(access());
      await graph.addDisk('disk', bench.file('top.qcow2'), 'qcow2');
      const user = { label: 'a guest', job: null };
      await graph.root('disk').disk.use(user, { writes: true });
      graph.root('disk').disk.release(user);
    }
    // what mid leaks may be what an interrupted job has staged
    expect([await leaks('mid.qcow2'), await leaks('top.qcow2')]).toEqual([true, false]);
  },
);
