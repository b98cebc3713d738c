import { copyFileSync, existsSync, linkSync, readFileSync } from 'node:fs';
import { document, QmpError } from '@downfold/qmp';
import { describe, expect, it } from 'vitest';
import { Graph } from '../src/graph/graph.ts';
import { BlockJobs } from '../src/jobs/block-jobs.ts';
import { Journals } from '../src/jobs/journals.ts';
import { logTo } from '../src/log.ts';
import { Exports } from '../src/nbd/exports.ts';
import { Objects } from '../src/options/objects.ts';
import { qmpServer } from '../src/qmp/server.ts';
import { access, Bench, contentOf, haveTools, MIB, makeChain } from './support.ts';

const PAGE = `# QMP of downfoldd

Made from the declarations in \`apps/server/src/qmp\` by \`vitest run -u --project server qmp\`; a test fails when it is not up to date.
Commands have QEMU's argument names, defaults and error classes; what begins with \`x-\` QEMU does not have.

`;

it('docs/qmp.md is what the server declares', async () => {
  const objects = new Objects();
  const graph = new Graph(access());
  const quiet = (): void => {};
  const log = logTo({ format: 'text', level: 'error' });
  const exports = new Exports(graph, objects, quiet, log);
  const jobs = new BlockJobs(graph, { ...access(), pools: [] }, quiet, log);
  const journals = new Journals(graph);
  await using server = qmpServer({ objects, graph, exports, jobs, journals, quit: quiet }, log);
  await expect(`${PAGE}${document(server)}`).toMatchFileSnapshot('../../../docs/qmp.md');
});

describe('commands', () => {
  it('refuse what they do not know, with the words and classes of QEMU', async () => {
    await using bench = new Bench();
    await makeChain(bench);
    const served = await bench.disk('top.qcow2');
    const refused = async (name: string, args: object): Promise<string> => {
      const error = await served.execute(name, args).catch((cause: QmpError) => cause);
      if (!(error instanceof QmpError)) throw new Error(`${name} was not refused`);
      return `${error.code}: ${error.message}`;
    };
    expect(await refused('block-commit', { device: 'nope' })).toBe(
      "DeviceNotFound: Device 'nope' not found",
    );
    expect(await refused('bogus', {})).toBe(
      'CommandNotFound: The command bogus has not been found',
    );
    expect(await refused('block-commit', { device: 'disk', bogus: 1 })).toBe(
      "GenericError: Parameter 'bogus' is unexpected",
    );
    expect(await refused('block-commit', {})).toBe("GenericError: Parameter 'device' is missing");
    expect(await refused('block-commit', { device: '#mid.qcow2' })).toMatch(
      /^GenericError: Need a root block node/,
    );
    const both = { device: 'disk', 'top-node': '#mid.qcow2', top: 'mid.qcow2' };
    expect(await refused('block-commit', both)).toBe(
      "GenericError: 'top-node' and 'top' are mutually exclusive",
    );
    expect(await refused('block-commit', { device: 'disk', top: 'x.qcow2' })).toBe(
      'GenericError: Top image file x.qcow2 not found',
    );
    const same = { device: 'disk', 'top-node': '#mid.qcow2', 'base-node': '#mid.qcow2' };
    expect(await refused('block-commit', same)).toBe(
      'GenericError: cannot commit an image into itself',
    );
    expect(await refused('block-commit', { device: 'disk', 'backing-file': 'x' })).toBe(
      "GenericError: 'backing-file' specified, but 'top' is the active layer",
    );
    expect(await refused('job-pause', { id: 'j' })).toBe('GenericError: Job not found');
    expect(await refused('block-job-cancel', { device: 'j' })).toBe(
      "DeviceNotActive: Block job 'j' not found",
    );
    expect(await refused('block-export-del', { id: 'x' })).toBe(
      "GenericError: Export 'x' is not found",
    );
    expect(await refused('blockdev-del', { 'node-name': '#base.qcow2' })).toMatch(/is busy/);
  });

  it('make nodes, export them and take them away again', async () => {
    await using bench = new Bench();
    await makeChain(bench);
    const served = await bench.disk('top.qcow2', '--read-only');
    await makeChain({ file: (name: string) => bench.file(`other-${name}`) } as Bench, {
      base: [3],
    });
    await served.execute('blockdev-add', {
      driver: 'file',
      'node-name': 'f0',
      filename: bench.file('other-base.qcow2'),
    });
    await served.execute('blockdev-add', { driver: 'qcow2', 'node-name': 'n0', file: 'f0' });
    const nodes =
      await served.execute<{ 'node-name': string; ro: boolean }[]>('query-named-block-nodes');
    expect(nodes.map((node) => node['node-name']).sort()).toEqual([
      '#base.qcow2',
      '#base.qcow2:file',
      '#mid.qcow2',
      '#mid.qcow2:file',
      'disk',
      'disk:file',
      'f0',
      'n0',
    ]);
    await expect(served.execute('blockdev-del', { 'node-name': 'f0' })).rejects.toThrow(/busy/);
    // a layer of one disk is none of another: by a link too
    linkSync(bench.file('mid.qcow2'), bench.file('again.qcow2'));
    const shared = served.execute('blockdev-add', {
      driver: 'qcow2',
      'node-name': 'n1',
      file: { driver: 'file', filename: bench.file('again.qcow2') },
    });
    await expect(shared).rejects.toThrow(/is node '#base.qcow2' already/);
    const add = { type: 'nbd', id: 'e1', 'node-name': 'n0', name: 'other', writable: true };
    await served.execute('block-export-add', add);
    await expect(served.execute('block-export-add', add)).rejects.toThrow(/already in use/);
    await expect(served.execute('blockdev-del', { 'node-name': 'n0' })).rejects.toThrow(/in use/);
    expect(await served.execute('query-block-exports')).toEqual([
      { id: 'disk', type: 'nbd', 'node-name': 'disk', 'shutting-down': false },
      { id: 'e1', type: 'nbd', 'node-name': 'n0', 'shutting-down': false },
    ]);
    await served.execute('block-export-del', { id: 'e1' });
    await served.until('BLOCK_EXPORT_DELETED');
    await served.execute('blockdev-del', { 'node-name': 'n0' });
    await served.execute('blockdev-del', { 'node-name': 'f0' });
    await served.execute('nbd-server-stop');
    await served.until('BLOCK_EXPORT_DELETED');
    await expect(served.execute('nbd-server-stop')).rejects.toThrow('NBD server not running');
    await served.execute('nbd-server-start', {
      addr: { type: 'unix', data: { path: bench.file('again.sock') } },
    });
    await served.execute('nbd-server-add', { device: 'disk' });
    await served.execute('nbd-server-remove', { name: 'disk' });
    await served.until('BLOCK_EXPORT_DELETED');
  });

  it('tell what they are, and what of a node may change', async () => {
    await using bench = new Bench();
    await makeChain(bench);
    const served = await bench.disk('top.qcow2', '--read-only');
    const schema = await served.execute<Record<string, unknown>[]>('query-qmp-schema');
    expect(schema).toContainEqual(
      expect.objectContaining({ name: 'block-commit', 'meta-type': 'command' }),
    );
    await makeChain({ file: (name: string) => bench.file(`other-${name}`) } as Bench, { base: [] });
    const node = {
      driver: 'qcow2',
      'node-name': 'n0',
      discard: 'unmap',
      file: { driver: 'file', 'node-name': 'f0', filename: bench.file('other-base.qcow2') },
    };
    await served.execute('blockdev-add', { ...node, 'read-only': true });
    const add = (): Promise<unknown> =>
      served.execute('block-export-add', {
        type: 'nbd',
        id: 'e',
        'node-name': 'n0',
        writable: true,
      });
    await expect(add()).rejects.toThrow("Block node is read-only: 'n0'");
    const reopen = (changed: object): Promise<unknown> =>
      served.execute('blockdev-reopen', { options: [{ ...node, file: 'f0', ...changed }] });
    await expect(reopen({ discard: 'ignore' })).rejects.toThrow("but 'read-only'");
    await expect(reopen({ backing: 'disk' })).rejects.toThrow("but 'read-only'");
    await reopen({ backing: null });
    await add();
    await expect(reopen({ 'read-only': true })).rejects.toThrow(/export 'e' uses it/);
  });

  it.each(['cache', 'aio', 'locking', 'force-share', 'detect-zeroes'])(
    'blockdev-add refuses %s, which it would not obey',
    async (name) => {
      await using bench = new Bench();
      await makeChain(bench);
      const served = await bench.disk('top.qcow2');
      const node = { driver: 'file', 'node-name': 'f', filename: bench.file('mid.qcow2') };
      const added = served.execute('blockdev-add', { ...node, [name]: 'off' });
      await expect(added).rejects.toThrow(`Parameter '${name}' is unexpected`);
    },
  );

  it('quit ends the server, after its answer', async () => {
    await using bench = new Bench();
    await makeChain(bench);
    const served = await bench.disk('top.qcow2');
    expect(await served.execute('quit')).toEqual({});
    expect(await served.server.ended).toMatchObject({ code: 0, stdout: '' });
    expect(existsSync(bench.file('run/qmp.sock'))).toBe(false);
    expect(existsSync(bench.file('run/nbd.sock'))).toBe(false);
  });
});

describe('a snapshot', () => {
  it.skipIf(!haveTools)(
    'is taken while a client writes; what it covers stays as it was',
    async () => {
      await using bench = new Bench();
      await makeChain(bench);
      const served = await bench.disk('top.qcow2');
      await bench.must('qemu-io', '-f', 'raw', '-c', 'write -P 7 12M 1M', bench.uri);
      const writes = bench.run(
        'qemu-io',
        '-f',
        'raw',
        ...Array.from({ length: 40 }, (_, at) => [
          '-c',
          `write -P 8 ${8 * MIB + at * 65_536} 64k`,
        ]).flat(),
        bench.uri,
      );
      await served.execute('blockdev-snapshot-sync', {
        device: 'disk',
        'snapshot-file': bench.file('snap.qcow2'),
        'snapshot-node-name': 's1',
      });
      expect((await writes).code).toBe(0);
      await bench.must('qemu-io', '-f', 'raw', '-c', 'write -P 9 12M 1M', bench.uri);
      expect(await served.execute('query-block-exports')).toMatchObject([{ 'node-name': 's1' }]);
      // the covered layer may be read by others, and not be written: its lock is a reader's
      await bench.must('qemu-io', '-r', '-c', 'read -P 7 12M 1M', 'top.qcow2');
      expect((await bench.run('qemu-io', '-c', 'write 0 64k', 'top.qcow2')).stderr).toMatch(/lock/);
      expect((await served.stop()).code).toBe(0);
      await bench.must('qemu-img', 'check', 'top.qcow2');
      await bench.must('qemu-img', 'check', 'snap.qcow2');
      await bench.must(
        'qemu-io',
        '-r',
        '-c',
        'read -P 9 12M 1M',
        '-c',
        `read -P 8 8M ${40 * 65_536}`,
        'snap.qcow2',
      );
    },
  );

  it('with an overlay that stands on something else is refused, and changes nothing', async () => {
    await using bench = new Bench();
    await makeChain(bench);
    const served = await bench.disk('top.qcow2');
    const add = (name: string, filename: string): Promise<unknown> =>
      served.execute('blockdev-add', {
        driver: 'qcow2',
        'node-name': name,
        backing: null,
        file: { driver: 'file', filename },
      });
    await makeChain({ file: (name: string) => bench.file(`other-${name}`) } as Bench, { base: [] });
    await add('alone', bench.file('other-base.qcow2'));
    const snapshot = (overlay: string): Promise<unknown> =>
      served.execute('blockdev-snapshot', { node: 'disk', overlay });
    await expect(snapshot('alone')).rejects.toThrow('names no backing file');
    copyFileSync(bench.file('mid.qcow2'), bench.file('copy.qcow2'));
    await add('copy', bench.file('copy.qcow2'));
    await expect(snapshot('copy')).rejects.toThrow(/stands on '.*base.qcow2'/);
    // a snapshot's file that is there already is nobody's to overwrite
    const sync = { device: 'disk', 'snapshot-file': bench.file('copy.qcow2') };
    await expect(served.execute('blockdev-snapshot-sync', sync)).rejects.toThrow(/exists already/);
    expect(existsSync(bench.file('copy.qcow2'))).toBe(true);
    expect(await served.execute('query-block-exports')).toMatchObject([{ 'node-name': 'disk' }]);
  });
});

it.skipIf(!haveTools)(
  'change-backing-file rewrites the string, and nothing a guest sees',
  async () => {
    await using bench = new Bench();
    await makeChain(bench);
    const served = await bench.disk('top.qcow2');
    const change = (image: string, name: string): Promise<unknown> =>
      served.execute('change-backing-file', {
        device: 'disk',
        'image-node-name': image,
        'backing-file': name,
      });
    await change('disk', './mid.qcow2');
    await change('#mid.qcow2', './base.qcow2');
    await expect(change('#base.qcow2', 'x')).rejects.toThrow('has no backing file');
    await expect(change('disk', 'x'.repeat(1100))).rejects.toThrow(/room|bytes/i);
    await bench.must('nbdcopy', bench.uri, 'after.raw');
    await served.stop();
    const infos = JSON.parse(
      await bench.must('qemu-img', 'info', '--backing-chain', '--output=json', 'top.qcow2'),
    );
    expect(infos.map((info: Record<string, string>) => info['backing-filename'])).toEqual([
      './mid.qcow2',
      './base.qcow2',
      undefined,
    ]);
    expect(readFileSync(bench.file('after.raw')).equals(contentOf())).toBe(true);
  },
);
