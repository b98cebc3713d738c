import { createHash } from 'node:crypto';
import { readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { Random } from '@downfold/compliance';
import { describe, expect, test } from 'vitest';
import { serveNbd } from '../src/index.ts';
import { MemoryExport } from './memory-export.ts';
import { havePeers, haveShell, nbdsh, run, scratch } from './support.ts';

const MiB = 1 << 20;

/** Data, holes, and data again, with edges off every boundary. */
function patchwork(seed: number, size = 4 * MiB): MemoryExport {
  const random = new Random(seed);
  const disk = new MemoryExport(size, { description: 'a patchwork' });
  for (let i = 0; i < 12; i++)
    disk.fill(random.next(size - 70_000), random.bytes(1 + random.next(65_536)));
  return disk;
}

const uri = (path: string, name = 'disk') => `nbd+unix:///${name}?socket=${path}`;

describe.skipIf(!havePeers)('other clients and our server', () => {
  test('nbdinfo sees what the export says of itself', async () => {
    using files = scratch();
    const path = files.path('nbd');
    const disk = patchwork(1);
    const locked = new MemoryExport(MiB, {
      readOnly: true,
      blockSize: { minimum: 512, preferred: 65_536, maximumPayload: MiB },
      supports: { trim: false, fastZero: false, cache: false, multiConn: false },
    });
    const exports = [
      ['disk', disk],
      ['locked', locked],
    ] as const;
    await using _server = await serveNbd({ listen: { path }, exports });
    const { exports: seen, ...protocol } = JSON.parse(
      await run('nbdinfo', '--json', '--list', `nbd+unix:///?socket=${path}`),
    );
    expect(protocol).toMatchObject({ protocol: 'newstyle-fixed', TLS: false, structured: true });
    const [first, second] = seen;
    expect(first).toMatchObject({
      'export-name': 'disk',
      description: 'a patchwork',
      'export-size': 4 * MiB,
      is_read_only: false,
      can_cache: true,
      can_df: true,
      can_fast_zero: true,
      can_flush: true,
      can_fua: true,
      can_multi_conn: true,
      can_trim: true,
      can_zero: true,
      block_size_minimum: 1,
      block_size_preferred: 4096,
      block_size_maximum: 32 * MiB,
      contexts: ['base:allocation', 'qemu:allocation-depth'],
    });
    expect(second).toMatchObject({
      'export-name': 'locked',
      is_read_only: true,
      can_cache: false,
      can_fast_zero: false,
      can_multi_conn: false,
      can_trim: false,
      can_zero: false,
      block_size_minimum: 512,
      block_size_preferred: 65_536,
      block_size_maximum: MiB,
    });
  });

  test('nbdinfo --map gets every extent', async () => {
    using files = scratch();
    const path = files.path('nbd');
    const disk = new MemoryExport(MiB);
    disk.fill(8192, Buffer.alloc(4096, 1));
    await using _server = await serveNbd({ listen: { path }, exports: [['disk', disk]] });
    expect(JSON.parse(await run('nbdinfo', '--map', '--json', uri(path)))).toEqual([
      { offset: 0, length: 8192, type: 3, description: 'hole,zero' },
      { offset: 8192, length: 4096, type: 0, description: 'data' },
      { offset: 12_288, length: MiB - 12_288, type: 3, description: 'hole,zero' },
    ]);
    const depth = await run('nbdinfo', '--map=qemu:allocation-depth', '--json', uri(path));
    expect(JSON.parse(depth).map((extent: { type: number }) => extent.type)).toEqual([0, 1, 0]);
  });

  test.each([1, 4])('nbdcopy over %i connections, out and in', async (connections) => {
    using files = scratch();
    const path = files.path('nbd');
    const [from, to] = [patchwork(2), new MemoryExport(4 * MiB)];
    const exports = [
      ['from', from],
      ['to', to],
    ] as const;
    await using _server = await serveNbd({ listen: { path }, exports });
    const options = [`--connections=${connections}`, '--request-size=65536', '--flush'];
    await run('nbdcopy', ...options, uri(path, 'from'), files.path('copy.raw'));
    expect(readFileSync(files.path('copy.raw')).equals(from.bytes)).toBe(true);
    await run('nbdcopy', ...options, files.path('copy.raw'), uri(path, 'to'));
    expect(to.bytes.equals(from.bytes)).toBe(true);
    expect(to.durable.equals(from.bytes)).toBe(true);
    await run('nbdcopy', ...options, '--destination-is-zero', uri(path, 'from'), uri(path, 'to'));
    expect(to.bytes.equals(from.bytes)).toBe(true);
  });

  test('qemu-img convert, compare and map', async () => {
    using files = scratch();
    const path = files.path('nbd');
    const [from, to] = [patchwork(3), new MemoryExport(4 * MiB)];
    const exports = [
      ['from', from],
      ['to', to],
    ] as const;
    await using _server = await serveNbd({ listen: { path }, exports });
    const raw = files.path('copy.raw');
    await run('qemu-img', 'convert', '-f', 'raw', '-O', 'raw', uri(path, 'from'), raw);
    expect(readFileSync(raw).equals(from.bytes)).toBe(true);
    await run('qemu-img', 'convert', '-n', '-f', 'raw', '-O', 'raw', raw, uri(path, 'to'));
    expect(to.bytes.equals(from.bytes)).toBe(true);
    await run('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', uri(path, 'from'), uri(path, 'to'));
    const map = JSON.parse(
      await run('qemu-img', 'map', '--output=json', '-f', 'raw', uri(path, 'from')),
    ) as { start: number; length: number; data: boolean; zero: boolean }[];
    for (const { start, length, zero } of map)
      if (zero) expect(from.bytes.subarray(start, start + length).every((b) => b === 0)).toBe(true);
    expect(map.reduce((sum, { length }) => sum + length, 0)).toBe(from.size);
    to.bytes[2 * MiB] = (to.bytes[2 * MiB] ?? 0) ^ 1;
    to.fill(2 * MiB, to.bytes.subarray(2 * MiB, 2 * MiB + 1));
    await expect(
      run('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', uri(path, 'from'), uri(path, 'to')),
    ).rejects.toThrow(/exit|mismatch|Command failed/i);
  });

  test('qemu-io: every command reaches the export as it was meant', async () => {
    using files = scratch();
    const path = files.path('nbd');
    const disk = new MemoryExport(MiB);
    await using _server = await serveNbd({ listen: { path }, exports: [['disk', disk]] });
    const io = async (...commands: readonly string[]) =>
      await run(
        'qemu-io',
        '-f',
        'raw',
        '-t',
        'writeback',
        ...commands.flatMap((c) => ['-c', c]),
        uri(path),
      );
    await io(
      'write -P 0x5a 4096 8192',
      'write -f -P 0x11 65536 4096',
      'flush',
      'read -P 0x5a 4096 8192',
    );
    expect(disk.calls.filter(({ call }) => call === 'write')).toEqual([
      { call: 'write', offset: 4096, length: 8192, fua: false },
      { call: 'write', offset: 65_536, length: 4096, fua: true },
    ]);
    expect(disk.named('flush').length).toBeGreaterThan(0);
    await io(
      'write -z 4096 4096',
      'write -z -u 8192 4096',
      'write -z -n -u 12288 4096',
      'discard 65536 4096',
    );
    expect(disk.named('writeZeroes')).toEqual([
      { call: 'writeZeroes', offset: 4096, length: 4096, fua: false, mayTrim: false, fast: false },
      { call: 'writeZeroes', offset: 8192, length: 4096, fua: false, mayTrim: true, fast: false },
      { call: 'writeZeroes', offset: 12_288, length: 4096, fua: false, mayTrim: true, fast: true },
    ]);
    expect(disk.named('trim')).toEqual([
      { call: 'trim', offset: 65_536, length: 4096, fua: false },
    ]);
    await io('read -P 0 0 1048576');
  });

  test('qemu-img over qcow2 in an export: a format on top of the protocol', async () => {
    using files = scratch();
    const path = files.path('nbd');
    const disk = new MemoryExport(4 * MiB);
    await using _server = await serveNbd({ listen: { path }, exports: [['disk', disk]] });
    const raw = files.path('in.raw');
    writeFileSync(raw, new Random(5).bytes(MiB));
    truncateSync(raw, 2 * MiB);
    await run('qemu-img', 'create', '-q', '-f', 'qcow2', uri(path), '2M');
    await run('qemu-img', 'convert', '-n', '-f', 'raw', '-O', 'qcow2', raw, uri(path));
    await run('qemu-img', 'compare', '-f', 'raw', '-F', 'qcow2', raw, uri(path));
    await run('qemu-img', 'check', '-q', '-f', 'qcow2', uri(path));
  });
});

describe.skipIf(!haveShell)('nbdsh and our server', () => {
  test('every request with every flag, and what comes back of each', async () => {
    using files = scratch();
    const path = files.path('nbd');
    const disk = new MemoryExport(MiB);
    await using _server = await serveNbd({ listen: { path }, exports: [['disk', disk]] });
    const said = await nbdsh(
      uri(path),
      `
h.pwrite(b"a" * 5000, 4096)
h.pwrite(b"b" * 512, 65536, nbd.CMD_FLAG_FUA)
h.flush()
h.zero(4096, 69632, nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FUA)
h.zero(4096, 73728, nbd.CMD_FLAG_FAST_ZERO)
h.trim(4096, 131072, nbd.CMD_FLAG_FUA)
h.cache(4096, 0)
print(bytes(h.pread(5000, 4096)) == b"a" * 5000)
def chunk(data, offset, status, error):
    print("chunk", offset, len(data), status == nbd.READ_DATA)
h.pread_structured(8192, 4096, chunk, nbd.CMD_FLAG_DF)
def extents(context, offset, entries, error):
    print(context, offset, entries)
h.block_status(1 << 20, 0, extents)
h.block_status(1 << 20, 0, extents, nbd.CMD_FLAG_REQ_ONE)
`,
    );
    expect(said).toEqual([
      'True',
      'chunk 4096 8192 True',
      `base:allocation 0 [4096, 3, 8192, 0, 53248, 3, 8192, 0, ${MiB - 73_728}, 3]`,
      'base:allocation 0 [4096, 3]',
    ]);
    const changes = disk.calls.filter(({ call }) => /write|zero|trim|cache|flush/i.test(call));
    expect(changes).toEqual([
      { call: 'write', offset: 4096, length: 5000, fua: false },
      { call: 'write', offset: 65_536, length: 512, fua: true },
      { call: 'flush', offset: 0, length: 0 },
      { call: 'writeZeroes', offset: 69_632, length: 4096, fua: true, mayTrim: false, fast: false },
      { call: 'writeZeroes', offset: 73_728, length: 4096, fua: false, mayTrim: true, fast: true },
      { call: 'trim', offset: 131_072, length: 4096, fua: true },
      { call: 'cache', offset: 0, length: 4096 },
    ]);
  });

  test('what a client must not ask is refused by name, and the connection lives on', async () => {
    using files = scratch();
    const path = files.path('nbd');
    const exports = [
      ['disk', new MemoryExport(MiB)],
      ['locked', new MemoryExport(MiB, { readOnly: true })],
    ] as const;
    await using _server = await serveNbd({ listen: { path }, exports });
    const attempts = `
import errno
h.set_strict_mode(0)
def attempt(name, request):
    try:
        request()
        print(name, "done")
    except nbd.Error as error:
        print(name, error.errno)
attempt("read past the end", lambda: h.pread(512, (1 << 20) - 256))
attempt("write past the end", lambda: h.pwrite(b"x" * 512, (1 << 20) - 256))
attempt("zero past the end", lambda: h.zero(512, 1 << 20))
attempt("unknown flag", lambda: h.pwrite(b"x" * 512, 0, 1 << 9))
attempt("flag of another request", lambda: h.pread(512, 0, nbd.CMD_FLAG_FAST_ZERO))
attempt("write", lambda: h.pwrite(b"x" * 512, 0))
attempt("trim", lambda: h.trim(512, 0))
attempt("read", lambda: h.pread(512, 0))
`;
    expect(await nbdsh(uri(path), attempts)).toEqual([
      'read past the end EINVAL',
      'write past the end ENOSPC',
      'zero past the end ENOSPC',
      'unknown flag EINVAL',
      'flag of another request EINVAL',
      'write done',
      'trim done',
      'read done',
    ]);
    expect((await nbdsh(uri(path, 'locked'), attempts)).slice(-3)).toEqual([
      'write EPERM',
      'trim EPERM',
      'read done',
    ]);
  });

  test('many requests under way on each of four connections: every answer is its own', async () => {
    using files = scratch();
    const path = files.path('nbd');
    const disk = patchwork(7);
    await using _server = await serveNbd({ listen: { path }, exports: [['disk', disk]] });
    const said = await nbdsh(
      uri(path),
      `
import hashlib
handles = [h]
for _ in range(3):
    other = nbd.NBD()
    other.connect_uri(h.get_uri())
    handles.append(other)
buffers = []
for number in range(400):
    buffer = nbd.Buffer(5000)
    handle = handles[number % 4]
    buffers.append(buffer)
    handle.aio_pread(buffer, (number * 7919 * 13) % ((4 << 20) - 5000))
for handle in handles:
    while handle.aio_in_flight() > 0:
        handle.poll(-1)
for buffer in buffers:
    print(hashlib.md5(buffer.to_bytearray()).hexdigest())
`,
    );
    const expected = Array.from({ length: 400 }, (_, number) => {
      const at = (number * 7919 * 13) % (4 * MiB - 5000);
      return createHash('md5')
        .update(disk.bytes.subarray(at, at + 5000))
        .digest('hex');
    });
    expect(said).toEqual(expected);
  });
});
