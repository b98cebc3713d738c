import { describe, expect, test } from 'vitest';
import {
  COMMAND,
  decodeExportFacts,
  decodeInfo,
  decodeMetaContext,
  decodeServerEntry,
  ERRNO,
  EXPORT_FLAG,
  encodeContextQuery,
  encodeInfoQuery,
  encodeOption,
  INFO,
  type NbdServer,
  OPTION,
  OPTION_REPLY,
  serveNbd,
} from '../src/index.ts';
import { MemoryExport } from './memory-export.ts';
import { RawClient } from './raw-client.ts';
import { scratch } from './support.ts';

interface Stage extends AsyncDisposable {
  readonly server: NbdServer;
  readonly client: RawClient;
  readonly errors: unknown[];
}

/** A server with two exports, and a client that has not said anything. */
async function stage(): Promise<Stage> {
  const files = scratch();
  const path = files.path('nbd');
  const errors: unknown[] = [];
  const server = await serveNbd({
    listen: { path },
    exports: [
      ['disk', new MemoryExport(65_536, { description: 'words' })],
      ['other', new MemoryExport(512, { readOnly: true })],
    ],
    onError: (error) => errors.push(error),
  });
  const client = new RawClient(path);
  return {
    server,
    client,
    errors,
    async [Symbol.asyncDispose]() {
      await client[Symbol.asyncDispose]();
      await server.close();
      files[Symbol.dispose]();
    },
  };
}

const info = (name: string, ...infos: readonly number[]) => encodeInfoQuery({ name, infos });
const contexts = (name: string, ...queries: readonly string[]) =>
  encodeContextQuery({ name, queries });

describe('options', () => {
  test('unknown client flags end the connection', async () => {
    await using on = await stage();
    await on.client.greet(4);
    await on.client.gone();
    expect(on.errors).toMatchObject([{ code: 'NBD_PROTOCOL' }]);
  });

  test('an unknown option is refused with its data, and the next one understood', async () => {
    await using on = await stage();
    await on.client.greet();
    expect(await on.client.final(4242, Buffer.alloc(1000, 9))).toBe(OPTION_REPLY.unsupported);
    expect(await on.client.final(OPTION.list)).toBe(OPTION_REPLY.ack);
  });

  test('data that is too large to look at is skipped; data that is absurd ends the connection', async () => {
    await using on = await stage();
    await on.client.greet();
    expect(await on.client.final(OPTION.go, Buffer.alloc(65_537))).toBe(OPTION_REPLY.tooBig);
    expect(await on.client.final(OPTION.list)).toBe(OPTION_REPLY.ack);
    const header = encodeOption(OPTION.go).subarray(0, 16);
    header.writeUInt32BE(0xffff_ffff, 12);
    on.client.send(header);
    await on.client.gone();
    expect(on.errors).toMatchObject([{ code: 'NBD_LIMIT' }]);
  });

  test('LIST tells names and descriptions; options without data refuse data', async () => {
    await using on = await stage();
    await on.client.greet();
    const replies = await on.client.option(OPTION.list);
    expect(replies.slice(0, -1).map(({ data }) => decodeServerEntry(data))).toEqual([
      { name: 'disk', description: 'words' },
      { name: 'other', description: '' },
    ]);
    for (const option of [OPTION.list, OPTION.structuredReply, OPTION.extendedHeaders])
      expect(await on.client.final(option, Buffer.alloc(1))).toBe(OPTION_REPLY.invalid);
  });

  test('INFO tells what was asked for and does not choose; unknown names are unknown', async () => {
    await using on = await stage();
    await on.client.greet();
    const ask = async (option: number, data: Buffer) =>
      (await on.client.option(option, data)).slice(0, -1).map((reply) => decodeInfo(reply.data));
    const asked = [INFO.blockSize, INFO.name, INFO.description, 999];
    expect(await ask(OPTION.info, info('disk', ...asked))).toMatchObject([
      { info: 'export', size: 65_536 },
      { info: 'name', text: 'disk' },
      { info: 'description', text: 'words' },
      { info: 'blockSize', minimum: 1, preferred: 4096, maximumPayload: 33_554_432 },
    ]);
    const [only, ...rest] = await ask(OPTION.info, info('other'));
    expect(rest).toEqual([]);
    const flags = EXPORT_FLAG.hasFlags | EXPORT_FLAG.readOnly | EXPORT_FLAG.flush | EXPORT_FLAG.fua;
    expect(only).toEqual({
      info: 'export',
      size: 512,
      flags: flags | EXPORT_FLAG.multiConn | EXPORT_FLAG.cache,
    });
    expect(await on.client.final(OPTION.info, info('nobody'))).toBe(OPTION_REPLY.unknown);
    expect(await on.client.final(OPTION.go, info(''))).toBe(OPTION_REPLY.unknown);
    expect(await on.client.final(OPTION.go, info('disk'))).toBe(OPTION_REPLY.ack);
  });

  const long = 'x'.repeat(4097);
  test.each([
    ['cut within the name', info('disk').subarray(0, 6)],
    ['without the count', info('disk').subarray(0, 8)],
    ['with more than it counts', Buffer.concat([info('disk'), Buffer.alloc(1)])],
    ['a name longer than all the data', Buffer.from([0xff, 0xff, 0xff, 0xff, 0, 0])],
    ['a name that is no UTF-8', Buffer.from([0, 0, 0, 1, 0xff, 0, 0])],
    ['a name with a NUL', Buffer.from([0, 0, 0, 1, 0, 0, 0])],
    [
      'a name above 4096 bytes',
      Buffer.concat([Buffer.from([0, 0, 0x10, 1]), Buffer.from(long), Buffer.alloc(2)]),
    ],
  ])('GO %s is INVALID, and haggling goes on', async (_, data) => {
    await using on = await stage();
    await on.client.greet();
    expect(await on.client.final(OPTION.go, data)).toBe(OPTION_REPLY.invalid);
    expect(await on.client.final(OPTION.go, info('disk'))).toBe(OPTION_REPLY.ack);
  });

  test('ABORT is acknowledged, and ends the connection', async () => {
    await using on = await stage();
    await on.client.greet();
    expect(await on.client.final(OPTION.abort)).toBe(OPTION_REPLY.ack);
    await on.client.gone();
    expect(on.errors).toEqual([]);
  });

  test('STARTTLS without TLS is refused by policy', async () => {
    await using on = await stage();
    await on.client.greet();
    expect(await on.client.final(OPTION.startTls)).toBe(OPTION_REPLY.policy);
  });
});

describe('EXPORT_NAME', () => {
  test.each([
    [3, 10],
    [1, 134],
    [0, 134],
  ])('client flags %i: %i bytes in answer', async (flags, bytes) => {
    await using on = await stage();
    await on.client.greet(flags);
    on.client.send(encodeOption(OPTION.exportName, Buffer.from('disk')));
    const reply = await on.client.take(bytes);
    expect(decodeExportFacts(reply).size).toBe(65_536);
    expect(reply.subarray(10).every((byte) => byte === 0)).toBe(true);
    on.client.listen('simple');
    expect(await on.client.request({ command: COMMAND.flush })).toMatchObject([{ error: 0 }]);
  });

  test.each([
    ['an unknown name', 3, Buffer.from('nobody')],
    ['bytes that are no name', 3, Buffer.from([0xff])],
    ['a name that is too long', 3, Buffer.alloc(5000, 0x61)],
  ])('%s ends the connection', async (_, flags, name) => {
    await using on = await stage();
    await on.client.greet(flags);
    on.client.send(encodeOption(OPTION.exportName, name));
    await on.client.gone();
    expect(on.errors.length).toBe(1);
  });

  test('after extended headers it ends the connection', async () => {
    await using on = await stage();
    await on.client.greet();
    await on.client.option(OPTION.extendedHeaders);
    on.client.send(encodeOption(OPTION.exportName, Buffer.from('disk')));
    await on.client.gone();
  });

  test('without the fixed protocol there is no other option', async () => {
    await using on = await stage();
    await on.client.greet(0);
    on.client.send(encodeOption(OPTION.list));
    await on.client.gone();
  });
});

describe('metadata contexts', () => {
  test('come after structured replies only', async () => {
    await using on = await stage();
    await on.client.greet();
    const query = contexts('disk', 'base:allocation');
    expect(await on.client.final(OPTION.setMetaContext, query)).toBe(OPTION_REPLY.invalid);
    expect(await on.client.final(OPTION.listMetaContext, query)).toBe(OPTION_REPLY.invalid);
  });

  test('a list knows wildcards, a choice does not', async () => {
    await using on = await stage();
    await on.client.greet();
    await on.client.option(OPTION.structuredReply);
    const names = async (option: number, ...queries: readonly string[]) =>
      (await on.client.option(option, contexts('disk', ...queries)))
        .slice(0, -1)
        .map(({ data }) => decodeMetaContext(data));
    const both = ['base:allocation', 'qemu:allocation-depth'];
    const { listMetaContext: list, setMetaContext: set } = OPTION;
    expect((await names(list)).map(({ name }) => name)).toEqual(both);
    expect((await names(list, 'qemu:')).map(({ name }) => name)).toEqual([both[1]]);
    expect((await names(list, 'base:', 'nobody:x')).map(({ name }) => name)).toEqual([both[0]]);
    expect(await names(set)).toEqual([]);
    expect(await names(set, 'base:')).toEqual([]);
    const chosen = await names(set, ...both, 'base:allocation');
    expect(chosen.map(({ name }) => name)).toEqual(both);
    expect(new Set(chosen.map(({ id }) => id)).size).toBe(2);
  });

  test.each([
    ['for another export', contexts('other', 'base:allocation')],
    ['before a choice that fails', contexts('nobody', 'base:allocation')],
    ['before a choice that is broken', Buffer.from([1])],
    ['before a choice of none', contexts('disk')],
  ])('chosen %s, they do not count', async (_, last) => {
    await using on = await stage();
    await on.client.greet();
    await on.client.option(OPTION.structuredReply);
    await on.client.option(OPTION.setMetaContext, contexts('disk', 'base:allocation'));
    await on.client.option(OPTION.setMetaContext, last);
    await on.client.enter('disk', 'structured');
    const said = await on.client.request({ command: COMMAND.blockStatus, length: 512 });
    expect(said).toMatchObject([{ error: ERRNO.EINVAL }]);
  });

  test('extended headers stay, once agreed on', async () => {
    await using on = await stage();
    await on.client.greet();
    expect(await on.client.final(OPTION.extendedHeaders)).toBe(OPTION_REPLY.ack);
    expect(await on.client.final(OPTION.structuredReply)).toBe(
      OPTION_REPLY.extendedHeadersRequired,
    );
  });

  test('flags of an export say what was agreed on', async () => {
    await using on = await stage();
    await on.client.greet();
    const flags = async () => {
      const [reply] = await on.client.option(OPTION.info, info('disk'));
      const item = decodeInfo(reply?.data ?? Buffer.alloc(0));
      return item.info === 'export' ? item.flags : 0;
    };
    const { df, blockStatusPayload } = EXPORT_FLAG;
    expect((await flags()) & (df | blockStatusPayload)).toBe(0);
    await on.client.option(OPTION.structuredReply);
    expect((await flags()) & (df | blockStatusPayload)).toBe(df);
    await on.client.option(OPTION.extendedHeaders);
    await on.client.option(OPTION.setMetaContext, contexts('disk', 'base:allocation'));
    expect((await flags()) & (df | blockStatusPayload)).toBe(df | blockStatusPayload);
  });
});

test('exports that the protocol has no room for are refused', async () => {
  await using on = await stage();
  const plain = new MemoryExport(512);
  const cases = [
    ['x'.repeat(4097), plain, 'NBD_NAME'],
    ['a\0b', plain, 'NBD_NAME'],
    ['disk', plain, 'NBD_NAME'],
    ['long', new MemoryExport(0, { description: 'x'.repeat(4097) }), 'NBD_NAME'],
    ['size', Object.assign(new MemoryExport(0), { size: 2 ** 53 }), 'NBD_RANGE'],
    [
      'block',
      new MemoryExport(0, { blockSize: { minimum: 3, preferred: 4096, maximumPayload: 4096 } }),
      'NBD_RANGE',
    ],
    [
      'block',
      new MemoryExport(0, { blockSize: { minimum: 4096, preferred: 512, maximumPayload: 4096 } }),
      'NBD_RANGE',
    ],
  ] as const;
  for (const [name, of, code] of cases)
    expect(() => on.server.add(name, of)).toThrow(expect.objectContaining({ code }));
  await expect(on.server.remove('nobody')).rejects.toMatchObject({ code: 'NBD_NAME' });
});
