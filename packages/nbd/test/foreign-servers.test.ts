import { readFileSync, writeFileSync } from 'node:fs';
import { foreignServer, Random } from '@downfold/compliance';
import { describe, expect, test } from 'vitest';
import { connectNbd, listExports, type NbdClient, STATE } from '../src/index.ts';
import { havePeers, haveShell, nbdsh, runSync, scratch } from './support.ts';

const MiB = 1 << 20;

/** Writes, reads back, and makes zeros all over the disk; many at once. */
async function exercise(client: NbdClient, seed: number): Promise<Buffer> {
  const random = new Random(seed);
  const { size, blockSize } = client.info;
  const model = Buffer.alloc(size);
  await client.read(0, model);
  const slots = 16;
  const slot = size / slots;
  const aligned = (value: number) => value - (value % blockSize.minimum);
  for (let round = 0; round < 10; round++) {
    await Promise.all(
      Array.from({ length: slots }, async (_, index) => {
        const offset = index * slot + aligned(random.next(slot / 2));
        const length = Math.max(blockSize.minimum, aligned(random.next(slot / 2)));
        if (random.next(3) === 0) {
          model.fill(0, offset, offset + length);
          return await client.writeZeroes(offset, length, { mayTrim: random.next(2) === 0 });
        }
        const bytes = random.bytes(length);
        model.set(bytes, offset);
        await client.write(offset, bytes, { fua: random.next(4) === 0 });
        const back = Buffer.alloc(length);
        await client.read(offset, back);
        expect(back.equals(bytes)).toBe(true);
      }),
    );
  }
  await client.flush();
  const all = Buffer.alloc(size);
  await client.read(0, all);
  expect(all.equals(model)).toBe(true);
  return model;
}

describe.skipIf(!havePeers)('our client and other servers', () => {
  test('qemu-nbd: everything it offers, and its contexts', async () => {
    using files = scratch();
    const [path, image] = [files.path('nbd'), files.path('disk.qcow2')];
    runSync('qemu-img', 'create', '-q', '-f', 'qcow2', image, '1M');
    const args = [
      '-k',
      path,
      '-f',
      'qcow2',
      '-x',
      'disk',
      '-D',
      'by qemu',
      '--allocation-depth',
      '-e',
      '4',
    ];
    let model: Buffer;
    {
      await using _server = await foreignServer(
        { path },
        'qemu-nbd',
        ...args,
        '-t',
        '--discard=unmap',
        image,
      );
      await using client = await connectNbd({
        server: { path },
        name: 'disk',
        contexts: ['base:allocation', 'qemu:allocation-depth', 'base:nonsense'],
      });
      expect(client.info).toMatchObject({
        description: 'by qemu',
        size: MiB,
        readOnly: false,
        style: 'structured',
        blockSize: { minimum: 1, preferred: 4096, maximumPayload: 32 * MiB },
      });
      expect([...client.info.contexts.values()]).toEqual([
        'base:allocation',
        'qemu:allocation-depth',
      ]);
      await client.write(65_536, Buffer.alloc(65_536, 7));
      const statuses = await client.blockStatus(0, MiB);
      expect(statuses.get('base:allocation')).toEqual([
        { length: 65_536, status: STATE.hole | STATE.zero },
        { length: 65_536, status: 0 },
        { length: MiB - 131_072, status: STATE.hole | STATE.zero },
      ]);
      expect(statuses.get('qemu:allocation-depth')?.map(({ status }) => status)).toEqual([0, 1, 0]);
      const one = await client.blockStatus(0, 4096, { one: true });
      expect(one.get('base:allocation')).toEqual([{ length: 4096, status: 3 }]);
      await client.trim(65_536, 65_536);
      await client.cache(0, 4096);
      model = await exercise(client, 11);
      expect(await listExports({ server: { path } })).toEqual([
        { name: 'disk', description: 'by qemu' },
      ]);
    }
    runSync('qemu-img', 'convert', '-f', 'qcow2', '-O', 'raw', image, files.path('out.raw'));
    expect(readFileSync(files.path('out.raw')).equals(model)).toBe(true);
  });

  test.each(['structured', 'simple'] as const)('nbdkit memory, %s', async (style) => {
    using files = scratch();
    const path = files.path('nbd');
    const extra = style === 'simple' ? ['--no-sr'] : [];
    await using _server = await foreignServer(
      { path },
      'nbdkit',
      '-f',
      '-U',
      path,
      ...extra,
      'memory',
      '1M',
    );
    await using client = await connectNbd({ server: { path }, contexts: ['base:allocation'] });
    expect(client.info.style).toBe(style);
    expect(client.info.contexts.size).toBe(style === 'simple' ? 0 : 1);
    await exercise(client, 12);
  });

  test('nbdkit file: the bytes of a file, and of a read-only one', async () => {
    using files = scratch();
    const [path, image] = [files.path('nbd'), files.path('disk.raw')];
    const bytes = new Random(3).bytes(MiB);
    writeFileSync(image, bytes);
    await using _server = await foreignServer(
      { path },
      'nbdkit',
      '-r',
      '-f',
      '-U',
      path,
      'file',
      image,
    );
    await using client = await connectNbd({ server: { path } });
    const all = Buffer.alloc(MiB);
    await client.read(0, all);
    expect(all.equals(bytes)).toBe(true);
    expect(client.info.readOnly).toBe(true);
    await expect(client.write(0, Buffer.alloc(512))).rejects.toMatchObject({
      code: 'NBD_UNSUPPORTED',
    });
  });

  test('nbdkit with errors: each has its name, and the connection lives on', async () => {
    using files = scratch();
    const path = files.path('nbd');
    const filter = ['--filter=error', 'memory', '1M', 'error-pread=ENOSPC', 'error-pwrite-rate=0'];
    const args = ['-f', '-U', path, ...filter, 'error-pread-rate=100%'];
    await using _server = await foreignServer({ path }, 'nbdkit', ...args);
    await using client = await connectNbd({ server: { path } });
    const target = Buffer.alloc(4096);
    await expect(client.read(0, target)).rejects.toMatchObject({
      code: 'NBD_ERRNO',
      details: { errno: 'ENOSPC' },
    });
    await client.write(0, target);
    await expect(client.read(4096, target)).rejects.toMatchObject({ code: 'NBD_ERRNO' });
  });

  test('nbdkit with half of the requests failing and answers out of order: no answer goes to another request', async () => {
    using files = scratch();
    const [path, image] = [files.path('nbd'), files.path('disk.raw')];
    const bytes = new Random(4).bytes(MiB);
    writeFileSync(image, bytes);
    const filters = ['--filter=error', '--filter=delay', 'file', image];
    const settings = ['error-pread-rate=50%', 'delay-read=5ms'];
    await using _server = await foreignServer(
      { path },
      'nbdkit',
      '-f',
      '-U',
      path,
      ...filters,
      ...settings,
    );
    await using client = await connectNbd({ server: { path } });
    const results = await Promise.allSettled(
      Array.from({ length: 200 }, async (_, index) => {
        const target = Buffer.alloc(1000);
        await client.read(index * 5000, target);
        expect(target.equals(bytes.subarray(index * 5000, index * 5000 + 1000))).toBe(true);
      }),
    );
    const failed = results.filter((result) => result.status === 'rejected');
    for (const { reason } of failed) expect(reason).toMatchObject({ details: { errno: 'EIO' } });
    expect(failed.length).toBeGreaterThan(50);
    expect(failed.length).toBeLessThan(150);
  });

  test('nbdkit with delays: requests are under way together', async () => {
    using files = scratch();
    const path = files.path('nbd');
    const args = ['-f', '-U', path, '--filter=delay', 'memory', '1M', 'delay-read=100ms'];
    await using _server = await foreignServer({ path }, 'nbdkit', ...args);
    await using client = await connectNbd({ server: { path } });
    const start = performance.now();
    await Promise.all(Array.from({ length: 8 }, () => client.read(0, Buffer.alloc(512))));
    expect(performance.now() - start).toBeLessThan(700);
  });

  test('a block size that the server insists on is kept', async () => {
    using files = scratch();
    const path = files.path('nbd');
    const policy = ['blocksize-minimum=512', 'blocksize-error-policy=error'];
    const args = ['-f', '-U', path, '--filter=blocksize-policy', 'memory', '1M', ...policy];
    await using _server = await foreignServer({ path }, 'nbdkit', ...args);
    await using client = await connectNbd({ server: { path } });
    expect(client.info.blockSize.minimum).toBe(512);
    await expect(client.write(1, Buffer.alloc(512))).rejects.toMatchObject({ code: 'NBD_RANGE' });
    await exercise(client, 13);
  });

  test('a server too old to know more than names', async () => {
    using files = scratch();
    const path = files.path('nbd');
    const args = ['-f', '-U', path, '--mask-handshake=0', 'memory', '1M'];
    await using _server = await foreignServer({ path }, 'nbdkit', ...args);
    await using client = await connectNbd({ server: { path }, contexts: ['base:allocation'] });
    expect(client.info).toMatchObject({ style: 'simple', size: MiB });
    await exercise(client, 14);
  });

  test('an oldstyle server is told apart', async () => {
    using files = scratch();
    const path = files.path('nbd');
    await using _server = await foreignServer(
      { path },
      'nbdkit',
      '-o',
      '-f',
      '-U',
      path,
      'memory',
      '1M',
    );
    await expect(connectNbd({ server: { path } })).rejects.toMatchObject({
      code: 'NBD_UNSUPPORTED',
    });
  });
});

test.skipIf(!havePeers || !haveShell)(
  'nbdsh beside us at one qemu-nbd: each sees what the other has flushed',
  async () => {
    using files = scratch();
    const [path, image] = [files.path('nbd'), files.path('disk.qcow2')];
    runSync('qemu-img', 'create', '-q', '-f', 'qcow2', image, '1M');
    const args = ['-k', path, '-f', 'qcow2', '-x', 'disk', '-e', '4', '-t', image];
    await using _server = await foreignServer({ path }, 'qemu-nbd', ...args);
    await using client = await connectNbd({
      server: { path },
      name: 'disk',
      contexts: ['base:allocation'],
    });
    await client.write(4096, Buffer.alloc(8192, 'ours'), { fua: true });
    const said = await nbdsh(
      `nbd+unix:///disk?socket=${path}`,
      `
print(bytes(h.pread(8192, 4096)) == b"ours" * 2048)
h.pwrite(b"theirs" * 100, 65537)
h.zero(4096, 8192)
h.flush()
`,
    );
    expect(said).toEqual(['True']);
    const back = Buffer.alloc(600);
    await client.read(65_537, back);
    expect(back.equals(Buffer.alloc(600, 'theirs'))).toBe(true);
    await client.read(8192, back);
    expect(back.every((byte) => byte === 0)).toBe(true);
  },
);
