import { copyFileSync, readFileSync, writeFileSync } from 'node:fs';
import type { Storage } from '@downfold/storage';
import { MemoryDisk, memoryBackend } from '@downfold/storage-memory';
import { describe, expect, test } from 'vitest';
import { qcow2 } from '../src/index.ts';
import { AUTOCLEAR_AT, HEADER_V2_BYTES, INCOMPATIBLE_AT } from '../src/structures.ts';
import { bytesOn, dump, haveQemu, load, range, run, scratch, soundByQemu } from './support.ts';

// Whatever QEMU wrote, opened for writing and closed without a change, is the same byte for byte: unknown extensions, longer headers
// and unknown feature bits included. The one exception is the specification's: an image that is dirty is repaired when it is opened for writing.

/** What `qemu-img create` and `qemu-io` are told. */
interface Made {
  readonly options: readonly string[];
  readonly backing?: 'with a format' | 'rebased, without one';
  readonly commands?: readonly string[];
  readonly after?: readonly (readonly string[])[];
}

const WRITES = ['write -P 1 0 100k', 'write -z 64k 32k', 'discard 0 64k'];
const COMPRESSED = ['write -c -P 2 0 64k'];

const widths = [1, 2, 4, 8, 16, 32, 64].map((bits) => ({ options: [`refcount_bits=${bits}`] }));
const clusters = ['512', '1k', '4k', '64k', '256k', '2M'].flatMap((size) => [
  { options: [`cluster_size=${size}`] },
  { options: ['compat=0.10', `cluster_size=${size}`] },
]);
const preallocations = ['off', 'metadata', 'falloc', 'full'].flatMap((mode) => [
  { options: [`preallocation=${mode}`] },
  { options: ['compat=0.10', `preallocation=${mode}`] },
]);

const images: readonly Made[] = [
  ...widths,
  ...clusters,
  ...preallocations,
  { options: ['extended_l2=on'] },
  { options: ['extended_l2=on', 'cluster_size=2M', 'lazy_refcounts=on'] },
  { options: ['extended_l2=on', 'preallocation=metadata'] },
  { options: ['lazy_refcounts=on'] },
  { options: ['compression_type=zlib'], commands: COMPRESSED },
  { options: ['compression_type=zstd'], commands: COMPRESSED },
  { options: ['compression_type=zstd', 'extended_l2=on'], commands: COMPRESSED },
  { options: ['compat=1.1'], backing: 'with a format' },
  { options: ['compat=0.10'], backing: 'with a format' },
  { options: ['cluster_size=512'], backing: 'with a format' },
  { options: ['compat=1.1'], backing: 'rebased, without one' },
  { options: ['compat=0.10'], backing: 'rebased, without one' },
  { options: ['data_file=DATA'] },
  { options: ['data_file=DATA', 'data_file_raw=on'] },
  { options: ['data_file=DATA', 'extended_l2=on'] },
  {
    options: ['compat=1.1'],
    after: [
      ['qemu-img', 'snapshot', '-c', 'one', 'IMAGE'],
      ['qemu-img', 'resize', '-q', 'IMAGE', '4M'],
      ['qemu-img', 'snapshot', '-c', 'two', 'IMAGE'],
    ],
  },
  {
    options: ['cluster_size=4k'],
    after: [
      ['qemu-img', 'bitmap', '--add', 'IMAGE', 'one'],
      ['qemu-img', 'bitmap', '--add', '--disable', '-g', '64k', 'IMAGE', 'two'],
      ['qemu-io', '-f', 'qcow2', '-c', 'write -P 3 8k 8k', 'IMAGE'],
    ],
  },
  {
    options: ['compat=1.1'],
    after: [['qemu-img', 'amend', '-f', 'qcow2', '-o', 'compat=0.10', 'IMAGE']],
  },
  {
    options: ['compat=0.10'],
    after: [['qemu-img', 'amend', '-f', 'qcow2', '-o', 'compat=1.1', 'IMAGE']],
  },
];

/** With room in the header beside the names of features. */
const roomy = images.filter(
  ({ options }) => !options.includes('compat=0.10') && !options.includes('cluster_size=512'),
);

describe.skipIf(!haveQemu)('opened for writing and closed, it is as it was', () => {
  test.each(
    images.map((made) => ({
      ...made,
      name: [...made.options, made.backing, made.after?.join('; ')].filter(Boolean).join(' '),
    })),
  )('$name', async (made) => {
    using dir = scratch();
    make(made, dir);
    const before = readFileSync(dir.path('image.qcow2'));
    for (const flushed of [false, true])
      expect(await after(dir, before, flushed), `${flushed ? 'and flushed' : ''}`).toBe(true);
  });

  test.each([
    ['unknown extensions', (bytes: Uint8Array) => insertExtension(bytes)],
    ['a longer header', (bytes: Uint8Array) => lengthenHeader(bytes)],
    ['unknown compatible and autoclear bits', (bytes: Uint8Array) => setUnknownBits(bytes)],
  ])('with %s', async (_, craft) => {
    using dir = scratch();
    for (const made of roomy.filter((_made, index) => index % 4 === 0)) {
      make(made, dir);
      const crafted = craft(readFileSync(dir.path('image.qcow2')));
      writeFileSync(dir.path('crafted.qcow2'), crafted);
      // still an image to QEMU
      if (made.backing === undefined && !made.options.includes('data_file=DATA'))
        soundByQemu(dir.path('crafted.qcow2'));
      expect(await after(dir, crafted, true), made.options.join(' ')).toBe(true);
    }
  });

  test('a dirty one is repaired, as the specification wants it; nothing else changes', async () => {
    using dir = scratch();
    make({ options: ['lazy_refcounts=on'] }, dir);
    const bytes = readFileSync(dir.path('image.qcow2'));
    bytes[INCOMPATIBLE_AT + 7] = (bytes[INCOMPATIBLE_AT + 7] ?? 0) | 1;
    const disk = await opened(dir, bytes, false);
    dump(disk, '/image', dir.path('repaired.qcow2'));
    soundByQemu(dir.path('repaired.qcow2'));
    const repaired = bytesOn(disk, '/image');
    const differing = [...repaired.keys()].filter((at) => repaired[at] !== bytes[at]);
    expect(differing).toEqual([INCOMPATIBLE_AT + 7]);
  });

  test('unknown autoclear bits go with the first change, and nothing else of the header', async () => {
    using dir = scratch();
    make({ options: ['cluster_size=4k'] }, dir);
    const bytes = setUnknownBits(readFileSync(dir.path('image.qcow2')));
    const disk = await memoryDiskOf(dir, bytes);
    {
      await using image = await qcow2.open(await memoryBackend(disk).open('/image', 'write'), {
        mode: 'write',
      });
      await image.writeZeroes(range(0, 4096), { fill: null });
      await image.flush();
    }
    const head = bytesOn(disk, '/image').subarray(0, 4096);
    const wanted = Uint8Array.from(bytes.subarray(0, 4096));
    wanted.fill(0, AUTOCLEAR_AT, AUTOCLEAR_AT + 8);
    expect(head).toEqual(wanted);
  });
});

/** Makes `image.qcow2`, with some data. */
function make(
  { options, backing, commands = WRITES, after: more = [] }: Made,
  { path }: ReturnType<typeof scratch>,
): void {
  const [image, data] = [path('image.qcow2'), path('image.data')];
  const text = options.join(',').replace('DATA', data);
  const below = backing === undefined ? [] : ['-b', path('below.raw'), '-F', 'raw'];
  if (backing !== undefined) writeFileSync(path('below.raw'), new Uint8Array(1 << 20).fill(7));
  run('qemu-img', 'create', '-q', '-f', 'qcow2', '-o', text, ...below, image, '2M');
  if (backing === 'rebased, without one') {
    // qemu-img asks for a format; an image of before it did has none
    const bytes = readFileSync(image);
    const at = bytes.indexOf(Uint8Array.of(0xe2, 0x79, 0x2a, 0xca));
    bytes.writeUInt32BE(0x1234_5678, at);
    writeFileSync(image, bytes);
  }
  run('qemu-io', '-f', 'qcow2', ...commands.flatMap((command) => ['-c', command]), image);
  for (const [tool = '', ...args] of more)
    run(tool, ...args.map((arg) => arg.replace('IMAGE', image)));
  copyFileSync(image, path('again.qcow2'));
}

async function memoryDiskOf(
  dir: ReturnType<typeof scratch>,
  bytes: Uint8Array,
): Promise<MemoryDisk> {
  const disk = new MemoryDisk();
  writeFileSync(dir.path('again.qcow2'), bytes);
  await load(disk, '/image', dir.path('again.qcow2'));
  disk.create('/data');
  return disk;
}

/** Opens an image of these bytes for writing, and closes it. */
async function opened(
  dir: ReturnType<typeof scratch>,
  bytes: Uint8Array,
  flushed: boolean,
): Promise<MemoryDisk> {
  const disk = await memoryDiskOf(dir, bytes);
  const backend = memoryBackend(disk);
  const openDataFile = (): Promise<Storage> => backend.open('/data', 'write');
  await using image = await qcow2.open(await backend.open('/image', 'write'), {
    mode: 'write',
    openDataFile,
  });
  if (flushed) await image.flush();
  return disk;
}

async function after(
  dir: ReturnType<typeof scratch>,
  bytes: Uint8Array,
  flushed: boolean,
): Promise<boolean> {
  return Buffer.compare(bytesOn(await opened(dir, bytes, flushed), '/image'), bytes) === 0;
}

/** Puts an extension that nobody knows before the others; what follows moves, the backing name included. */
function insertExtension(bytes: Uint8Array): Uint8Array {
  return moved(
    bytes,
    Buffer.concat([
      Buffer.from('0badcafe0000000d', 'hex'),
      Buffer.from('what is this?\0\0\0', 'latin1'),
    ]),
    0,
  );
}

/** A header with eight bytes more, which are zero. */
function lengthenHeader(bytes: Uint8Array): Uint8Array {
  return moved(bytes, new Uint8Array(8), 8);
}

function moved(bytes: Uint8Array, added: Uint8Array, longer: number): Uint8Array {
  const result = Buffer.from(bytes);
  const length = result.readUInt32BE(100);
  const cluster = 2 ** result.readUInt32BE(20);
  const backingAt = Number(result.readBigUInt64BE(8));
  const end = backingAt === 0 ? Math.min(cluster, 4096) : backingAt + result.readUInt32BE(16);
  result.set(bytes.subarray(length, Math.min(end, cluster - added.length)), length + added.length);
  result.set(added, length);
  result.writeUInt32BE(length + longer, 100);
  if (backingAt !== 0) result.writeBigUInt64BE(BigInt(backingAt + added.length), 8);
  return result;
}

function setUnknownBits(bytes: Uint8Array): Uint8Array {
  const result = Buffer.from(bytes);
  for (const at of [HEADER_V2_BYTES + 8, AUTOCLEAR_AT]) result[at] = 0x40;
  return result;
}
