import { readFileSync, writeFileSync } from 'node:fs';
import { imageSecret } from '@downfold/image';
import { luks } from '@downfold/luks-image';
import { qcow2 } from '@downfold/qcow2';
import { QmpError } from '@downfold/qmp';
import { fileBackend } from '@downfold/storage-file';
import { byteLength } from '@downfold/units';
import { describe, expect, it } from 'vitest';
import { Bench, haveAll, MIB, type Served, serve, type Whose, WRITABLE } from './support.ts';

const haveTools = haveAll('qemu-img', 'qemu-io', 'qemu-storage-daemon');

/** Passphrases: no message, log or answer may hold one. */
const WORDS = { k1: 'open-sesame-1', k2: 'open-sesame-2' } as const;
type Id = keyof typeof WORDS;

/** Images of a chain, bottom first, and the secrets of those that are encrypted. */
const CHAIN = { base: 'k1', mid: null, top: 'k2', active: 'k1' } as const;
type Name = keyof typeof CHAIN;
const NAMES = Object.keys(CHAIN) as readonly Name[];

/** The secrets as QEMU's tools, and the server, are told of them. */
function objects(bench: Bench): readonly string[] {
  return Object.keys(WORDS).flatMap((id) => [
    '--object',
    `secret,id=${id},file=${bench.file(id)}${id === 'k2' ? ',format=base64' : ''}`,
  ]);
}

/** QEMU's name of an image with those below it. */
function named(...names: readonly string[]): string {
  return names
    .flatMap((name, depth) => {
      const at = 'backing.'.repeat(depth);
      const key = CHAIN[name as Name] ?? null;
      return [
        `${at}driver=qcow2`,
        `${at}file.filename=${name}.qcow2`,
        ...(key === null ? [] : [`${at}encrypt.key-secret=${key}`]),
      ];
    })
    .join(',');
}

/** Not by qemu-img, which times its key slots, and fails at that where others use the machine. */
async function create(bench: Bench, name: string, key: Id | null, below?: string): Promise<void> {
  const storage = await fileBackend().create(bench.file(`${name}.qcow2`), { secret: false });
  const backing = below === undefined ? null : { name: `${below}.qcow2`, format: 'qcow2' };
  const secret = key === null ? null : imageSecret(Buffer.from(WORDS[key]));
  await using _image = await qcow2.create(storage, {
    virtualSize: byteLength(8 * MIB),
    backing,
    ...(secret === null ? {} : { encryption: { secret, iterTime: 0 } }),
  });
}

/** As a guest does, by QEMU, where no server has the images. */
async function write(bench: Bench, what: string, ...names: readonly string[]): Promise<void> {
  await bench.must('qemu-io', ...objects(bench), '--image-opts', '-c', what, named(...names));
}

/** The chain, with data of every layer, and `active.raw`, which is what it shows. */
async function chain(bench: Bench): Promise<void> {
  writeFileSync(bench.file('k1'), WORDS.k1);
  writeFileSync(bench.file('k2'), Buffer.from(WORDS.k2).toString('base64'));
  for (const [index, name] of NAMES.entries())
    await create(bench, name, CHAIN[name], NAMES[index - 1]);
  await write(bench, 'write -P 1 0 4M', 'base');
  await write(bench, 'write -P 2 1M 2M', 'mid', 'base');
  await write(bench, 'write -P 3 2M 1M', 'top', 'mid', 'base');
  await write(bench, 'write -P 4 5M 70000', ...NAMES.toReversed());
  await keep(bench, 'active.raw', ...NAMES.toReversed());
}

async function keep(bench: Bench, to: string, ...names: readonly string[]): Promise<void> {
  await bench.must(
    'qemu-img',
    'convert',
    ...objects(bench),
    '--image-opts',
    named(...names),
    '-O',
    'raw',
    to,
  );
}

/** QEMU reads of an image with those below it what a copy holds, and finds nothing wrong with it. */
async function shows(bench: Bench, copy: string, ...names: readonly string[]): Promise<void> {
  const raw = `driver=raw,file.filename=${copy}`;
  await bench.must('qemu-img', 'compare', ...objects(bench), '--image-opts', named(...names), raw);
  for (const index of names.keys())
    await bench.must(
      'qemu-img',
      'check',
      '-q',
      ...objects(bench),
      '--image-opts',
      named(...names.slice(index)),
    );
}

/** As a guest of the server; the same in the copy. */
async function guest(bench: Bench, what: string, copy: string): Promise<void> {
  const uri = `nbd+unix:///disk?socket=${bench.file('nbd.sock')}`;
  await bench.must('qemu-io', '-f', 'raw', '-c', what, '-c', 'flush', uri);
  await bench.must('qemu-io', '-f', 'raw', '-c', what, copy);
}

const encryptOf = (name: Name): object =>
  CHAIN[name] === null ? {} : { encrypt: { format: 'luks', 'key-secret': CHAIN[name] } };

const fileOf = (bench: Bench, name: string): object => ({
  driver: 'file',
  filename: bench.file(`${name}.qcow2`),
});

/** The whole chain as one node, written out. */
function disk(bench: Bench): readonly string[] {
  const node = NAMES.reduce<object | null>(
    (backing, name) => ({
      driver: 'qcow2',
      'node-name': name === 'active' ? 'disk' : name,
      file: fileOf(bench, name),
      backing,
      ...encryptOf(name),
    }),
    null,
  );
  return ['--blockdev', JSON.stringify(node), ...WRITABLE];
}

async function errorOf(served: Served, name: string, args: object): Promise<string> {
  const cause = await served.execute(name, args).catch((error: unknown) => error);
  if (!(cause instanceof QmpError)) throw new Error(`${name} ${JSON.stringify(args)}: not refused`);
  return cause.message;
}

describe.skipIf(!haveTools)('an encrypted disk', () => {
  it('is served, written, committed below, streamed into and committed, and QEMU reads it', async () => {
    await using bench = new Bench();
    await chain(bench);
    const served = await serve(
      bench,
      'us',
      ...objects(bench),
      ...disk(bench),
      '--log-level',
      'debug',
    );
    await guest(bench, 'write -P 5 3M 100k', 'active.raw');
    // whoever has it open needs no object any more, also to open it another time
    for (const id of Object.keys(WORDS)) await served.execute('object-del', { id });
    await served.execute('block-stream', { 'job-id': 'j', device: 'disk', 'base-node': 'mid' });
    await served.until('null');
    const ends = { 'top-node': 'mid', 'base-node': 'base' };
    await served.execute('block-commit', {
      'job-id': 'j',
      device: 'disk',
      ...ends,
      speed: 2 * MIB,
    });
    await guest(bench, 'write -P 6 1500k 700k', 'active.raw');
    await served.until('null');
    const nodes = JSON.stringify(await served.execute('query-named-block-nodes'));
    const said = `${nodes}${(await served.stop()).stderr}`;
    for (const word of Object.values(WORDS)) expect(said).not.toContain(word);
    await shows(bench, 'active.raw', 'active', 'base');
    await write(bench, 'write -P 7 0 64k', 'active', 'base');
    await keep(bench, 'active.raw', 'active', 'base');
    // no plain text in what is encrypted
    for (const [name, byte] of [
      ['base', 3],
      ['active', 4],
    ] as const)
      expect(readFileSync(bench.file(`${name}.qcow2`)).includes(Buffer.alloc(4096, byte))).toBe(
        false,
      );
  });

  it('is committed into its base, which is the disk then', async () => {
    await using bench = new Bench();
    await chain(bench);
    const served = await serve(bench, 'us', ...objects(bench), ...disk(bench));
    await served.execute('block-commit', {
      'job-id': 'j',
      device: 'disk',
      'x-siblings': 'invalidate',
    });
    await served.until('BLOCK_JOB_READY');
    await guest(bench, 'write -P 5 3M 100k', 'active.raw');
    await served.execute('job-complete', { id: 'j' });
    await served.until('null');
    await guest(bench, 'write -P 8 7M 5000', 'active.raw');
    expect((await served.stop()).code).toBe(0);
    await shows(bench, 'active.raw', 'base');
  });

  it('gets an encrypted overlay, that a node is or that is named on the way', async () => {
    await using bench = new Bench();
    await chain(bench);
    await create(bench, 'over', 'k2', 'active');
    const served = await serve(
      bench,
      'us',
      ...objects(bench),
      ...['--secret', `${bench.file('next.qcow2')}=${bench.file('k1')}`],
      ...disk(bench),
    );
    await served.execute('blockdev-add', {
      driver: 'qcow2',
      'node-name': 'over',
      file: fileOf(bench, 'over'),
      backing: null,
      encrypt: { format: 'luks', 'key-secret': 'k2' },
    });
    await served.execute('blockdev-snapshot', { node: 'disk', overlay: 'over' });
    await guest(bench, 'write -P 9 1M 300k', 'active.raw');
    const all = { active: 'k1', over: 'k2', next: 'k1' };
    await create(bench, 'next', 'k1', 'over');
    await served.execute('blockdev-snapshot-sync', {
      'node-name': 'over',
      'snapshot-file': bench.file('next.qcow2'),
      mode: 'existing',
    });
    await guest(bench, 'write -P 10 6M 3000', 'active.raw');
    expect((await served.stop()).code).toBe(0);
    const keyed = ['next', 'over', ...NAMES.toReversed()]
      .flatMap((name, depth) => {
        const at = 'backing.'.repeat(depth);
        const key = { ...CHAIN, ...all }[name as Name];
        return [
          `${at}driver=qcow2,${at}file.filename=${name}.qcow2`,
          ...(key === null ? [] : [`${at}encrypt.key-secret=${key}`]),
        ];
      })
      .join(',');
    await bench.must(
      'qemu-img',
      'compare',
      ...objects(bench),
      '--image-opts',
      keyed,
      'driver=raw,file.filename=active.raw',
    );
  });

  it('in the short form has its secrets by --secret; a killed job goes on with them', async () => {
    await using bench = new Bench();
    await chain(bench);
    writeFileSync(bench.file('word2'), WORDS.k2);
    const secrets = ['--secret', 'k1', '--secret', 'top.qcow2=word2'];
    const served = await bench.disk('active.qcow2', ...secrets);
    const nodes = { 'top-node': '#top.qcow2', 'base-node': '#base.qcow2' };
    await served.execute('block-commit', {
      'job-id': 'j',
      device: 'disk',
      ...nodes,
      speed: 1 << 20,
    });
    await expect
      .poll(() => served.execute('query-jobs'))
      .toMatchObject([{ 'current-progress': expect.toSatisfy((done) => done > 0) }]);
    await served.kill();
    const again = await bench.disk('active.qcow2', ...secrets, '--resume');
    await again.server.said(/goes on as job/);
    await expect.poll(() => again.execute('query-block-jobs'), { timeout: 20_000 }).toEqual([]);
    expect((await again.stop()).code).toBe(0);
    await shows(bench, 'active.raw', 'active', 'base');
  });
});

it.skipIf(!haveTools)('a LUKS image is a base, and becomes the disk', async () => {
  await using bench = new Bench();
  await chain(bench);
  const storage = await fileBackend().create(bench.file('base.luks'), { secret: false });
  {
    const encryption = { secret: imageSecret(Buffer.from(WORDS.k1)), iterTime: 0 };
    await using _image = await luks.create(storage, {
      virtualSize: byteLength(8 * MIB),
      encryption,
    });
  }
  const named = 'driver=luks,key-secret=k1,file.filename=base.luks';
  await bench.must('qemu-io', ...objects(bench), '--image-opts', '-c', 'write -P 3 0 3M', named);
  await bench.must(
    'qemu-img',
    'create',
    '-q',
    '-f',
    'qcow2',
    '-u',
    '-b',
    'base.luks',
    '-F',
    'luks',
    'over.qcow2',
    '8M',
  );
  const node = (secret: object): object => ({
    driver: 'qcow2',
    'node-name': 'disk',
    file: fileOf(bench, 'over'),
    backing: {
      driver: 'luks',
      'node-name': 'base',
      file: { driver: 'file', filename: bench.file('base.luks') },
      ...secret,
    },
  });
  const served = await serve(bench, 'us', ...objects(bench));
  expect(await errorOf(served, 'blockdev-add', node({}))).toContain("'key-secret' of a luks image");
  await served.execute('blockdev-add', node({ 'key-secret': 'k1' }));
  await served.execute('block-export-add', {
    type: 'nbd',
    id: 'e',
    'node-name': 'disk',
    writable: true,
  });
  await bench.must('qemu-img', 'create', '-q', '-f', 'raw', 'copy.raw', '8M');
  await bench.must('qemu-io', '-f', 'raw', '-c', 'write -P 3 0 3M', 'copy.raw');
  await guest(bench, 'write -P 5 2500k 1M', 'copy.raw');
  await served.execute('block-commit', {
    'job-id': 'j',
    device: 'disk',
    'x-siblings': 'invalidate',
  });
  await served.until('BLOCK_JOB_READY');
  await guest(bench, 'write -P 6 5000 3000', 'copy.raw');
  await served.execute('job-complete', { id: 'j' });
  await served.until('null');
  await guest(bench, 'write -P 7 7M 5000', 'copy.raw');
  expect((await served.stop()).code).toBe(0);
  await bench.must(
    'qemu-img',
    'compare',
    ...objects(bench),
    '--image-opts',
    named,
    'driver=raw,file.filename=copy.raw',
  );
});

describe.skipIf(!haveTools)('secrets', () => {
  it('that are missing or wrong are refused as by QEMU; others stay as they are', async () => {
    const said: Record<Whose, string[]> = { QEMU: [], us: [] };
    const told: Record<Whose, unknown> = { QEMU: null, us: null };
    for (const whose of ['QEMU', 'us'] as const) {
      await using bench = new Bench();
      await chain(bench);
      const served = await serve(bench, whose);
      const secret = { 'qom-type': 'secret', id: 'k1', data: WORDS.k1 };
      await served.execute('object-add', secret);
      await served.execute('object-add', { 'qom-type': 'secret', id: 'bad', data: 'bad' });
      const add = (name: string, encrypt: object): object => ({
        driver: 'qcow2',
        'node-name': name,
        file: fileOf(bench, 'base'),
        ...encrypt,
      });
      const of = (id: string): object => ({ encrypt: { format: 'luks', 'key-secret': id } });
      for (const encrypt of [{}, of('bad'), of('none')])
        said[whose].push(await errorOf(served, 'blockdev-add', add('n', encrypt)));
      await served.execute('blockdev-add', add('base', of('k1')));
      said[whose].push(await errorOf(served, 'object-del', { id: 'none' }));
      const nodes =
        await served.execute<readonly Record<string, unknown>[]>('query-named-block-nodes');
      const node = nodes.find((one) => one['node-name'] === 'base') as {
        encrypted: boolean;
        image: { encrypted: boolean };
      };
      told[whose] = [node.encrypted, node.image.encrypted];
      if (whose === 'QEMU') continue;
      // twice: what is refused takes nothing from the node that is there
      expect(await errorOf(served, 'blockdev-add', add('twice', of('bad')))).toContain(
        'base.qcow2',
      );
      await served.execute('block-export-add', {
        type: 'nbd',
        id: 'e',
        'node-name': 'base',
        name: 'disk',
        writable: true,
      });
      await guest(bench, 'write -P 1 0 64k', 'active.raw');
      await served.execute('block-export-del', { id: 'e', mode: 'hard' });
      await served.until('BLOCK_EXPORT_DELETED');
      await served.execute('blockdev-del', { 'node-name': 'base' });
      expect(await errorOf(served, 'blockdev-add', add('n', {}))).toContain('--secret IMAGE=FILE');
      const { stderr } = await served.stop();
      expect(`${said.us}${stderr}`).not.toContain(WORDS.k1);
    }
    expect(said.us).toHaveLength(said.QEMU.length);
    for (const [index, words] of said.QEMU.entries()) expect(said.us[index]).toContain(words);
    expect(told.us).toEqual(told.QEMU);
  });

  it('are files on the command line, and are not shown', async () => {
    await using bench = new Bench();
    await chain(bench);
    const refused = async (...args: readonly string[]): Promise<string> => {
      const { code, stderr } = await bench.start([...args, '--qmp', 'unix:run/qmp.sock']).ended;
      expect([code, stderr.includes('hush')]).toEqual([1, false]);
      return stderr;
    };
    expect(await refused('--object', 'secret,id=s,data=hush')).toContain('file=FILE');
    expect(
      await refused('--object', '{"qom-type": "secret", "id": "s", "data": "hush"}'),
    ).toContain('file=FILE');
    expect(await refused('--object', 'secret,id=s,file=nowhere')).toContain('nowhere');
    expect(await refused('--object', 'secret,id=s,file=k1,format=base64')).toContain('is none');
    expect(await refused('--secret', 'nowhere', 'base.qcow2')).toContain('nowhere');
    expect(await refused('base.qcow2')).toContain("Parameter 'encrypt.key-secret' is required");
    expect(await refused('base.qcow2', '--secret', 'k2')).toContain('Invalid password');
  });
});
