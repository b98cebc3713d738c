import { Random } from '@downfold/compliance';
import { describe, expect, test } from 'vitest';
import {
  COMMAND,
  COMMAND_FLAG,
  ERRNO,
  encodeContextQuery,
  errnoError,
  type NbdServer,
  OPTION,
  type Style,
  serveNbd,
} from '../src/index.ts';
import { MemoryExport } from './memory-export.ts';
import { RawClient, type Said } from './raw-client.ts';
import { scratch } from './support.ts';

const MiB = 1 << 20;

interface Stage extends AsyncDisposable {
  readonly disk: MemoryExport;
  readonly client: RawClient;
  readonly server: NbdServer;
  readonly errors: unknown[];
}

/** A server with one export, and a raw client past its handshake. */
async function stage(style: Style, disk: MemoryExport = new MemoryExport(MiB)): Promise<Stage> {
  const files = scratch();
  const errors: unknown[] = [];
  const path = files.path('nbd');
  const server = await serveNbd({
    listen: { path },
    exports: [['disk', disk]],
    onError: (error) => errors.push(error),
  });
  const client = new RawClient(path);
  await client.greet();
  if (style === 'structured') await client.option(OPTION.structuredReply);
  if (style === 'extended') await client.option(OPTION.extendedHeaders);
  if (style !== 'simple')
    await client.option(
      OPTION.setMetaContext,
      encodeContextQuery({ name: 'disk', queries: [...disk.contexts] }),
    );
  await client.enter('disk', style);
  return {
    disk,
    client,
    server,
    errors,
    async [Symbol.asyncDispose]() {
      await client[Symbol.asyncDispose]();
      await server.close();
      files[Symbol.dispose]();
    },
  };
}

/** The error of an answer; 0 for success. */
function errorOf(said: readonly Said[]): number {
  for (const each of said) if (each.said === 'error' || each.said === 'simple') return each.error;
  return 0;
}

describe('reads', () => {
  test('holes are told and not sent; edges of data and holes are exact', async () => {
    await using on = await stage('structured');
    on.disk.fill(4096, Buffer.alloc(4096, 5));
    const said = await on.client.request({ command: COMMAND.read, offset: 100, length: 20_000 });
    expect(said).toEqual([
      { said: 'hole', cookie: 1, offset: 100, length: 3996 },
      { said: 'data', cookie: 1, offset: 4096, bytes: Buffer.alloc(4096, 5) },
      { said: 'hole', cookie: 1, offset: 8192, length: 20_100 - 8192 },
    ]);
  });

  test('DF: one chunk, with the zeros of the holes in it', async () => {
    await using on = await stage('extended');
    on.disk.fill(4096, Buffer.alloc(4096, 5));
    const said = await on.client.request(
      { command: COMMAND.read, flags: COMMAND_FLAG.df, offset: 0, length: 12_288 },
      { extended: true },
    );
    const bytes = Buffer.alloc(12_288);
    bytes.fill(5, 4096, 8192);
    expect(said).toEqual([{ said: 'data', cookie: 1, offset: 0, bytes }]);
  });

  test('simple replies carry the zeros of holes', async () => {
    await using on = await stage('simple');
    on.disk.fill(0, Buffer.alloc(100, 7));
    on.client.expecting.set(9, 8192);
    const request = { command: COMMAND.read, cookie: 9, offset: 0, length: 8192 };
    const [head, data] = await on.client.request(request);
    expect(head).toMatchObject({ said: 'simple', error: 0 });
    const bytes = Buffer.alloc(8192);
    bytes.fill(7, 0, 100);
    expect(data).toMatchObject({ bytes });
  });

  test.each([
    ['beyond the end', [{ offset: 10, length: 1000 }]],
    ['before the start', [{ offset: -10, length: 20 }]],
    ['of nothing', [{ offset: 10, length: 0 }]],
    [
      'that overlap',
      [
        { offset: 0, length: 20 },
        { offset: 10, length: 20 },
      ],
    ],
    [
      'out of order',
      [
        { offset: 100, length: 20 },
        { offset: 10, length: 20 },
      ],
    ],
  ])('an export that reports holes %s is not believed', async (_, holes) => {
    for (const style of ['simple', 'structured'] as const) {
      await using on = await stage(style);
      on.disk.read = async (offset) => holes.map((h) => ({ ...h, offset: h.offset + offset }));
      const said = await on.client.request({ command: COMMAND.read, offset: 512, length: 512 });
      expect(errorOf(said)).toBe(ERRNO.EIO);
      expect(on.errors).toMatchObject([{ message: expect.stringContaining('reports holes') }]);
    }
  });
});

describe('changes', () => {
  test.each(['simple', 'extended'] as const)('FUA reaches the export, %s', async (style) => {
    await using on = await stage(style);
    const extended = style === 'extended';
    const payload = Buffer.alloc(4096, 1);
    const flags = COMMAND_FLAG.fua | (extended ? COMMAND_FLAG.payloadLength : 0);
    const write = { command: COMMAND.write, flags, offset: 0, length: 4096 };
    expect(errorOf(await on.client.request(write, { extended, payload }))).toBe(0);
    expect(on.disk.durable.subarray(0, 4096).equals(payload)).toBe(true);
    const fua = COMMAND_FLAG.fua;
    const range = { offset: 0, length: 4096, flags: fua };
    await on.client.request({ command: COMMAND.writeZeroes, ...range }, { extended });
    await on.client.request({ command: COMMAND.trim, ...range }, { extended });
    for (const { call, ...options } of on.disk.calls)
      expect(options, call).toMatchObject({ fua: true });
    expect(on.disk.calls.length).toBe(3);
  });

  test('NO_HOLE and FAST_ZERO reach the export; what is not fast is ENOTSUP', async () => {
    await using on = await stage('structured');
    const zero = (flags: number, offset = 0) =>
      on.client.request({ command: COMMAND.writeZeroes, flags, offset, length: 4096 });
    await zero(0);
    await zero(COMMAND_FLAG.noHole);
    await zero(COMMAND_FLAG.fastZero);
    expect(on.disk.calls.map(({ mayTrim, fast }) => [mayTrim, fast])).toEqual([
      [true, false],
      [false, false],
      [true, true],
    ]);
    expect(errorOf(await zero(COMMAND_FLAG.fastZero, 1))).toBe(ERRNO.ENOTSUP);
  });

  test('without the abilities, their commands and flags are EINVAL', async () => {
    const supports = { trim: false, fastZero: false, cache: false, multiConn: false };
    await using on = await stage('structured', new MemoryExport(MiB, { supports }));
    const range = { offset: 0, length: 512 };
    const zero = { command: COMMAND.writeZeroes, flags: COMMAND_FLAG.fastZero, ...range };
    expect(errorOf(await on.client.request(zero))).toBe(ERRNO.EINVAL);
    for (const command of [COMMAND.trim, COMMAND.cache])
      expect(errorOf(await on.client.request({ command, ...range }))).toBe(ERRNO.EINVAL);
    expect(on.disk.calls).toEqual([]);
  });

  test('read-only: EPERM, whatever the flags the client believes in', async () => {
    await using on = await stage('structured', new MemoryExport(MiB, { readOnly: true }));
    const range = { offset: 0, length: 512 };
    const write = { command: COMMAND.write, ...range };
    const answer = await on.client.request(write, { payload: Buffer.alloc(512) });
    expect(errorOf(answer)).toBe(ERRNO.EPERM);
    for (const command of [COMMAND.writeZeroes, COMMAND.trim])
      expect(errorOf(await on.client.request({ command, ...range }))).toBe(ERRNO.EPERM);
    expect(on.disk.calls).toEqual([]);
    expect(errorOf(await on.client.request({ command: COMMAND.read, ...range }))).toBe(0);
  });
});

describe('what must not reach the export', () => {
  const far = 2 ** 52;
  test.each([
    ['read past the end', COMMAND.read, MiB - 511, 512, 'EINVAL'],
    ['read far away', COMMAND.read, far, 512, 'EINVAL'],
    ['write past the end', COMMAND.write, MiB - 511, 512, 'ENOSPC'],
    ['write far away', COMMAND.write, far, 512, 'ENOSPC'],
    ['zeros past the end', COMMAND.writeZeroes, MiB - 511, 512, 'ENOSPC'],
    ['zeros longer than the disk', COMMAND.writeZeroes, 0, 2 ** 32 - 1, 'ENOSPC'],
    ['trim past the end', COMMAND.trim, MiB, 1, 'EINVAL'],
    ['cache past the end', COMMAND.cache, 1, MiB, 'EINVAL'],
    ['status past the end', COMMAND.blockStatus, 1, MiB, 'EINVAL'],
    ['status of nothing', COMMAND.blockStatus, 0, 0, 'EINVAL'],
    ['read above the payload limit', COMMAND.read, 0, 33 * MiB, 'EOVERFLOW'],
    ['flush of a part', COMMAND.flush, 0, 512, 'EINVAL'],
    ['a command nobody knows', 77, 0, 512, 'EINVAL'],
  ] as const)('%s', async (_, command, offset, length, errno) => {
    await using on = await stage('structured');
    const payload = command === COMMAND.write ? { payload: Buffer.alloc(length) } : {};
    const said = await on.client.request({ command, offset, length }, payload);
    expect(said).toMatchObject([{ said: 'error', error: ERRNO[errno] }]);
    expect(said[0]).toHaveProperty('message', expect.stringMatching(/^[a-z]/));
    expect(on.disk.calls).toEqual([]);
  });

  test('64-bit offsets and lengths are compared, not wrapped', async () => {
    await using on = await stage('extended');
    const huge = Number.MAX_SAFE_INTEGER;
    for (const [offset, length] of [
      [huge, huge],
      [huge, 512],
      [0, huge],
      [512, 2 ** 32],
    ] as const)
      for (const command of [COMMAND.read, COMMAND.trim, COMMAND.writeZeroes, COMMAND.cache])
        expect(
          errorOf(await on.client.request({ command, offset, length }, { extended: true })),
        ).toBeGreaterThan(0);
    expect(on.disk.calls).toEqual([]);
  });

  test.each([
    ['DF on a write of zeros', 'structured', COMMAND.writeZeroes, COMMAND_FLAG.df],
    ['DF without chunks', 'simple', COMMAND.read, COMMAND_FLAG.df],
    ['REQ_ONE on a read', 'structured', COMMAND.read, COMMAND_FLAG.reqOne],
    ['NO_HOLE on a trim', 'structured', COMMAND.trim, COMMAND_FLAG.noHole],
    ['PAYLOAD_LEN on a compact read', 'structured', COMMAND.read, COMMAND_FLAG.payloadLength],
    ['a flag nobody knows', 'structured', COMMAND.flush, 1 << 15],
  ] as const)('%s is EINVAL', async (_, style, command, flags) => {
    await using on = await stage(style);
    const length = command === COMMAND.flush ? 0 : 512;
    expect(errorOf(await on.client.request({ command, flags, length }))).toBe(ERRNO.EINVAL);
    expect(on.disk.calls).toEqual([]);
  });

  test('alignment that the export asks for', async () => {
    const blockSize = { minimum: 512, preferred: 4096, maximumPayload: 65_536 };
    await using on = await stage('structured', new MemoryExport(MiB, { blockSize }));
    const read = (offset: number, length: number) =>
      on.client.request({ command: COMMAND.read, offset, length });
    expect(errorOf(await read(1, 512))).toBe(ERRNO.EINVAL);
    expect(errorOf(await read(0, 511))).toBe(ERRNO.EINVAL);
    expect(errorOf(await read(0, 65_536 + 512))).toBe(ERRNO.EOVERFLOW);
    const payload = Buffer.alloc(65_536 + 512);
    const write = { command: COMMAND.write, offset: 0, length: payload.length };
    expect(errorOf(await on.client.request(write, { payload }))).toBe(ERRNO.EINVAL);
    expect(on.disk.calls).toEqual([]);
    expect(errorOf(await read(512, 65_536))).toBe(0);
  });

  test('a write without its payload, and a payload that nobody asked for, in extended headers', async () => {
    await using on = await stage('extended');
    const extended = true;
    const write = { command: COMMAND.write, offset: 0, length: 512 };
    expect(errorOf(await on.client.request(write, { extended }))).toBe(ERRNO.EINVAL);
    const trim = { ...write, command: COMMAND.trim, flags: COMMAND_FLAG.payloadLength };
    const payload = Buffer.alloc(512, 0xff);
    expect(errorOf(await on.client.request(trim, { extended, payload }))).toBe(ERRNO.EINVAL);
    expect(on.disk.calls).toEqual([]);
    // the payload was taken: what follows is a request again
    expect(errorOf(await on.client.request({ command: COMMAND.flush }, { extended }))).toBe(0);
  });

  test('a payload above 32 MiB ends the connection', async () => {
    await using on = await stage('simple');
    const length = 32 * MiB + 1;
    await expect(on.client.request({ command: COMMAND.write, length })).rejects.toThrow('hung up');
    expect(on.errors).toMatchObject([{ code: 'NBD_LIMIT' }]);
  });

  test('requests of no bytes succeed, and the export does not hear of them', async () => {
    await using on = await stage('structured');
    for (const command of [COMMAND.read, COMMAND.write, COMMAND.trim, COMMAND.writeZeroes])
      expect(errorOf(await on.client.request({ command, offset: MiB }))).toBe(0);
    expect(on.disk.calls).toEqual([]);
  });
});

describe('errors', () => {
  const withCode = (code: string) => Object.assign(new Error('/secret/path'), { code });
  test.each([
    ['an error of this package', errnoError('ENOMEM', 'try later'), 'ENOMEM', 'try later'],
    ['ENOSPC of the system', withCode('ENOSPC'), 'ENOSPC', 'no space left'],
    ['EDQUOT of the system', withCode('EDQUOT'), 'ENOSPC', 'no space left'],
    ['EACCES of the system', withCode('EACCES'), 'EPERM', 'not permitted'],
    ['a full backend', withCode('STORAGE_NO_SPACE'), 'ENOSPC', 'no space left'],
    ['anything else', new Error('/secret/path'), 'EIO', 'input/output error'],
    ['what is no error at all', undefined, 'EIO', 'input/output error'],
  ] as const)('%s', async (_, failure, errno, message) => {
    await using on = await stage('structured');
    on.disk.read = () => Promise.reject(failure);
    on.disk.write = () => Promise.reject(failure);
    const read = await on.client.request({ command: COMMAND.read, length: 512 });
    expect(read).toEqual([{ said: 'error', cookie: 1, error: ERRNO[errno], message }]);
    const payload = Buffer.alloc(512);
    const write = await on.client.request({ command: COMMAND.write, length: 512 }, { payload });
    expect(errorOf(write)).toBe(ERRNO[errno]);
  });

  test('an export that throws at once harms nobody', async () => {
    await using on = await stage('simple');
    on.disk.flush = () => {
      throw new Error('at once');
    };
    expect(errorOf(await on.client.request({ command: COMMAND.flush }))).toBe(ERRNO.EIO);
    expect(errorOf(await on.client.request({ command: COMMAND.cache, length: 1 }))).toBe(0);
  });
});

describe('block status', () => {
  test('one chunk for each context; REQ_ONE: one extent, no longer than asked', async () => {
    await using on = await stage('structured');
    on.disk.fill(4096, Buffer.alloc(4096, 5));
    const all = await on.client.request({
      command: COMMAND.blockStatus,
      offset: 0,
      length: 16_384,
    });
    expect(all).toEqual([
      {
        said: 'status',
        cookie: 1,
        context: 1,
        extents: [
          { length: 4096, status: 3 },
          { length: 4096, status: 0 },
          { length: 8192, status: 3 },
        ],
      },
      {
        said: 'status',
        cookie: 1,
        context: 2,
        extents: [
          { length: 4096, status: 0 },
          { length: 4096, status: 1 },
          { length: 8192, status: 0 },
        ],
      },
    ]);
    const flags = COMMAND_FLAG.reqOne;
    on.disk.blockStatus = async () => [{ length: MiB, status: 3 }];
    const one = await on.client.request({ command: COMMAND.blockStatus, flags, length: 1000 });
    for (const each of one) expect(each).toMatchObject({ extents: [{ length: 1000, status: 3 }] });
  });

  test('the last extent may reach beyond what was asked for, no other, and none beyond the disk', async () => {
    await using on = await stage('structured');
    on.disk.blockStatus = async () => [
      { length: 600, status: 0 },
      { length: 600, status: 3 },
      { length: 600, status: 0 },
    ];
    const status = (offset: number, length: number) =>
      on.client.request({ command: COMMAND.blockStatus, offset, length });
    const extents = async (offset: number, length: number) => {
      const [first] = await status(offset, length);
      return first?.said === 'status' ? first.extents.map((e) => e.length) : [];
    };
    expect(await extents(0, 1000)).toEqual([600, 600]);
    expect(await extents(0, 1200)).toEqual([600, 600]);
    expect(await extents(0, 1201)).toEqual([600, 600, 600]);
    expect(await extents(MiB - 1300, 1300)).toEqual([600, 600, 100]);
  });

  test('neighbours with one status are one extent; 32 bits hold no more than 32 bits', async () => {
    const long = new MemoryExport(0);
    Object.assign(long, { size: 2 ** 40 });
    const GiB = 2 ** 30;
    const merging = [
      { length: 3 * GiB, status: 3 },
      { length: 3 * GiB, status: 3 },
      { length: GiB, status: 0 },
    ];
    let runs = merging;
    long.blockStatus = async () => runs;
    {
      await using on = await stage('structured', long);
      const [first] = await on.client.request({
        command: COMMAND.blockStatus,
        length: 2 ** 32 - 1,
      });
      expect(first).toMatchObject({ extents: [{ length: 2 ** 32 - 65_536, status: 3 }] });
      // what follows a run that was cut would be told at the wrong place
      runs = [
        { length: 2 ** 32 - 1000, status: 3 },
        { length: GiB, status: 0 },
      ];
      const [second] = await on.client.request({
        command: COMMAND.blockStatus,
        length: 2 ** 32 - 1,
      });
      expect(second).toHaveProperty('extents', [{ length: 2 ** 32 - 65_536, status: 3 }]);
    }
    runs = merging;
    await using on = await stage('extended', long);
    const [first] = await on.client.request(
      { command: COMMAND.blockStatus, length: 7 * GiB },
      { extended: true },
    );
    expect(first).toMatchObject({
      extents: [
        { length: 6 * GiB, status: 3 },
        { length: GiB, status: 0 },
      ],
    });
  });

  test('an export that knows nothing, or nothing long, is EIO', async () => {
    await using on = await stage('structured');
    for (const extents of [[], [{ length: 0, status: 0 }]]) {
      on.disk.blockStatus = async () => extents;
      const said = await on.client.request({ command: COMMAND.blockStatus, length: 512 });
      expect(errorOf(said)).toBe(ERRNO.EIO);
    }
  });

  test('extended headers: a payload picks contexts; unknown, repeated and broken picks are EINVAL', async () => {
    await using on = await stage('extended');
    const pick = (length: number, ...ids: readonly number[]) => {
      const payload = Buffer.alloc(8 + 4 * ids.length);
      payload.writeUInt32BE(length, 4);
      ids.forEach((id, index) => {
        payload.writeUInt32BE(id, 8 + 4 * index);
      });
      return payload;
    };
    const ask = (payload: Buffer) =>
      on.client.request(
        {
          command: COMMAND.blockStatus,
          flags: COMMAND_FLAG.payloadLength,
          length: payload.length,
        },
        { extended: true, payload },
      );
    expect(await ask(pick(4096, 2))).toMatchObject([{ said: 'status', context: 2 }]);
    expect(on.disk.named('blockStatus')).toMatchObject([
      { context: 'qemu:allocation-depth', length: 4096 },
    ]);
    for (const bad of [pick(4096, 3), pick(4096, 1, 1), pick(4096), pick(4096, 1).subarray(0, 11)])
      expect(errorOf(await ask(bad))).toBe(ERRNO.EINVAL);
    expect(errorOf(await ask(pick(2 * MiB, 1)))).toBe(ERRNO.EINVAL);
    expect(on.disk.named('blockStatus').length).toBe(1);
  });

  test('without contexts it is EINVAL', async () => {
    await using on = await stage('simple');
    expect(errorOf(await on.client.request({ command: COMMAND.blockStatus, length: 512 }))).toBe(
      ERRNO.EINVAL,
    );
  });
});

test('cookies of 64 bits come back as they are, whatever the order of the answers', async () => {
  await using on = await stage('structured');
  const random = new Random(1);
  const cookies = Array.from({ length: 12 }, (_, i) => 2 ** 52 + 17 * i + random.next(16));
  const gate = Promise.withResolvers<void>();
  on.disk.gate = gate.promise;
  const answers = cookies.map((cookie, index) => {
    on.disk.fill(index * 4096, Buffer.alloc(4096, index + 1));
    return on.client.request({ command: COMMAND.read, cookie, offset: index * 4096, length: 4096 });
  });
  gate.resolve();
  for (const [index, said] of (await Promise.all(answers)).entries())
    expect(said).toMatchObject([{ said: 'data', bytes: Buffer.alloc(4096, index + 1) }]);
});

test('each request is told of once, with what its client is told and how long it took', async () => {
  using files = scratch();
  const path = files.path('nbd');
  const disk = new MemoryExport(MiB);
  const heard: (readonly [string, number, number, string | null, boolean])[] = [];
  await using _server = await serveNbd({
    listen: { path },
    exports: [['disk', disk]],
    onAnswer:
      (name) =>
      (...[command, length, errno, took]) =>
        void heard.push([name, command, length, errno, took > 0]),
  });
  await using client = new RawClient(path);
  await client.go('disk', 'structured');
  await client.request({ command: COMMAND.read, length: 4096 });
  await client.request({ command: COMMAND.flush });
  await client.request({ command: 77, length: 1 });
  await client.request({ command: COMMAND.read, offset: MiB, length: 512 });
  disk.read = async () => {
    throw errnoError('ENOSPC', 'as it happens');
  };
  await client.request({ command: COMMAND.read, length: 512 });
  expect(heard).toEqual([
    ['disk', COMMAND.read, 4096, null, true],
    ['disk', COMMAND.flush, 0, null, true],
    ['disk', 77, 1, 'EINVAL', false],
    ['disk', COMMAND.read, 512, 'EINVAL', false],
    ['disk', COMMAND.read, 512, 'ENOSPC', true],
  ]);
});
