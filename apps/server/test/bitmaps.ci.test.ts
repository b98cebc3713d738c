import { unlinkSync } from 'node:fs';
import { connectNbd } from '@downfold/nbd';
import { dirtyRanges, qcow2 } from '@downfold/qcow2';
import { fileBackend } from '@downfold/storage-file';
import type { GuestRange } from '@downfold/units';
import { expect, it } from 'vitest';
import { Bench, haveTools, MIB, makeChain, type Served } from './support.ts';

const DONE = ['waiting', 'pending', 'BLOCK_JOB_COMPLETED', 'concluded', 'null'];

/** A MiB of the guest's. */
async function write(bench: Bench, mebibyte: number): Promise<void> {
  await using client = await connectNbd({ server: { path: bench.file('run/nbd.sock') }, name: '' });
  await client.write(mebibyte * MIB, Buffer.alloc(MIB, `written ${mebibyte}; `));
  await client.flush();
}

async function snapshot(bench: Bench, served: Served, device: string, name: string): Promise<void> {
  await served.execute('blockdev-snapshot-sync', {
    device,
    'snapshot-file': bench.file(`${name}.qcow2`),
    'snapshot-node-name': name,
  });
}

/** Commits the layer below the active one into base, whose node is `disk`. */
async function commit(served: Served, device: string, top: string): Promise<void> {
  const nodes = { device, 'top-node': top, 'base-node': 'disk' };
  await served.execute('block-commit', { 'job-id': 'j', ...nodes });
  expect(await served.until('null')).toEqual(['created', 'running', ...DONE]);
}

/** What the bitmap of an image says has changed. */
async function dirtyOf(path: string, name: string): Promise<readonly GuestRange[]> {
  const storage = await fileBackend().open(path, 'read');
  await using image = await qcow2.open(storage, { mode: 'read' });
  return [...dirtyRanges(await image.bitmaps.content(name))];
}

// closing a layer's writer saves its bitmaps: whoever has it open for reading then must know where they are
it.skipIf(!haveTools)(
  'a layer with a bitmap is committed into, again and again, and the bitmap records it',
  async () => {
    await using bench = new Bench();
    await makeChain(bench, { base: [0, 1] });
    await bench.must('qemu-img', 'bitmap', '--add', 'base.qcow2', 'b');
    const served = await bench.disk('base.qcow2');
    await write(bench, 2);
    await snapshot(bench, served, 'disk', 'one');
    await write(bench, 3);
    for (const [top, over, mebibyte] of [
      ['one', 'two', 4],
      ['two', 'three', 5],
    ] as const) {
      await snapshot(bench, served, top, over);
      await write(bench, mebibyte);
      await commit(served, over, top);
      // else the next commit would ruin it
      unlinkSync(bench.file(`${top}.qcow2`));
    }
    expect((await served.stop()).code).toBe(0);
    await bench.must('qemu-img', 'check', 'base.qcow2');
    const info = JSON.parse(await bench.must('qemu-img', 'info', '--output=json', 'base.qcow2'));
    expect(info['format-specific'].data.bitmaps).toEqual([
      { flags: ['auto'], name: 'b', granularity: 65_536 },
    ]);
    // what was written to base itself, and what the commits brought
    expect(await dirtyOf(bench.file('base.qcow2'), 'b')).toEqual([
      { offset: 2 * MIB, length: 3 * MIB },
    ]);
  },
);
