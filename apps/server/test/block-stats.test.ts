import { statSync } from 'node:fs';
import { connectNbd } from '@downfold/nbd';
import { describe, expect, it } from 'vitest';
import { Bench, makeChain, serve, WHOSE, WRITABLE } from './support.ts';

/** As it goes over QMP. */
interface Stats {
  readonly 'node-name': string;
  readonly stats: Readonly<Record<string, number>>;
  readonly parent?: Stats;
}

const disk = (bench: Bench): string =>
  `{"driver": "qcow2", "node-name": "disk", "file": {"driver": "file", "node-name": "f", "filename": "${bench.file('top.qcow2')}"}}`;

describe.each(WHOSE)('what is told of requests, by %s', (whose) => {
  it('names nodes and members as QEMU does; devices there are none of', async () => {
    await using bench = new Bench();
    await makeChain(bench);
    const served = await serve(bench, whose, '--blockdev', disk(bench));
    expect(await served.execute('query-block')).toEqual([]);
    expect(await served.execute('query-blockstats')).toEqual([]);
    const nodes = await served.execute<readonly Stats[]>('query-blockstats', {
      'query-nodes': true,
    });
    const [node, file] = ['disk', 'f'].map((name) =>
      nodes.find((one) => one['node-name'] === name),
    );
    expect(node?.parent?.['node-name']).toBe('f');
    const members = [
      ...['rd', 'wr', 'unmap'].flatMap((kind) => [`${kind}_bytes`, `${kind}_merged`]),
      ...['rd', 'wr', 'flush', 'unmap'].flatMap((kind) => [
        `${kind}_operations`,
        `${kind}_total_time_ns`,
        `failed_${kind}_operations`,
        `invalid_${kind}_operations`,
      ]),
      ...['wr_highest_offset', 'account_invalid', 'account_failed', 'timed_stats'],
    ].sort();
    for (const one of [node, file, node?.parent])
      expect(Object.keys(one?.stats ?? {}).sort()).toEqual(members);
  });
});

it('requests of all exports of a disk count for its active layer, and a file reaches to its end', async () => {
  await using bench = new Bench();
  await makeChain(bench);
  const served = await serve(bench, 'us', '--blockdev', disk(bench), ...WRITABLE);
  {
    await using client = await connectNbd({
      server: { path: bench.file('nbd.sock') },
      name: 'disk',
    });
    await client.write(0, Buffer.alloc(100_000, 1));
    await client.write(500_000, Buffer.alloc(100_000, 1));
    await client.read(0, Buffer.alloc(4096));
    await client.flush();
  }
  const nodes = await served.execute<readonly Stats[]>('query-blockstats', { 'query-nodes': true });
  const node = nodes.find((one) => one['node-name'] === 'disk');
  expect(node?.stats).toMatchObject({
    ...{ wr_operations: 2, wr_bytes: 200_000, rd_operations: 1, rd_bytes: 4096 },
    ...{ flush_operations: 1, failed_wr_operations: 0, unmap_operations: 0 },
  });
  expect(node?.stats['wr_total_time_ns']).toBeGreaterThan(0);
  const { size } = statSync(bench.file('top.qcow2'));
  expect(node?.parent?.stats['wr_highest_offset']).toBe(size);
});
