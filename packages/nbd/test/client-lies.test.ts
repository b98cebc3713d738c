import { createServer } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import {
  COMMAND,
  connectNbd,
  encodeDataHeader,
  encodeError,
  encodeGreeting,
  encodeHole,
  encodeInfoBlockSize,
  encodeInfoExport,
  encodeMetaContext,
  encodeNone,
  encodeOptionReply,
  encodeSimpleReply,
  encodeStatus,
  listExports,
  type NbdClient,
  OPTION,
  OPTION_REPLY,
  type Request,
} from '../src/index.ts';
import { type Script, scriptedServer } from './scripted-server.ts';
import { scratch } from './support.ts';

const contexts = ['base:allocation', 'qemu:x'];
const structured = (request: Request, done: boolean) =>
  ({ style: 'structured', tag: request.tag, done }) as const;
const data = (request: Request, done: boolean, offset: number, length: number) => [
  encodeDataHeader(structured(request, done), offset, length),
  Buffer.alloc(length, 1),
];
/** Bytes of a message, some of them other ones. */
const edited = (bytes: Buffer, edit: (bytes: Buffer) => void) => {
  edit(bytes);
  return bytes;
};
/** A tag with another cookie. */
const strange = (request: Request) => ({
  ...request,
  tag: edited(Buffer.from(request.tag), (tag) => {
    tag[7] = 99;
  }),
});

const doRead = (client: NbdClient) => client.read(512, Buffer.alloc(1024));
const doStatus = (client: NbdClient) => client.blockStatus(0, 1024);
const doOne = (client: NbdClient) => client.blockStatus(0, 1024, { one: true });

/** Connects, does `work`, and gives back what it fails with. Afterwards the client must be gone for good. */
async function failureOf(script: Script, work: (client: NbdClient) => Promise<unknown>) {
  using files = scratch();
  const path = files.path('nbd');
  await using _server = await scriptedServer(path, script);
  await using client = await connectNbd({ server: { path }, contexts, style: script.style });
  const other = client.flush().catch((error: unknown) => error);
  const error = await work(client).then(
    () => 'it was believed',
    (cause: unknown) => cause,
  );
  // requests beside it fail as well, and later ones at once
  expect(await other).toMatchObject({ name: 'NbdError' });
  await expect(client.flush()).rejects.toMatchObject({ name: 'NbdError' });
  return error;
}

/** Answers all but flushes. */
const answering = (reply: (request: Request) => readonly Buffer[]): Script => ({
  style: 'structured',
  request: (request) => (request.command === COMMAND.flush ? [] : reply(request)),
});

describe('a server that lies about a read', () => {
  const cases: Record<string, (request: Request) => readonly Buffer[]> = {
    'a cookie of nobody': (r) => data(strange(r), true, 512, 1024),
    'another magic': () => [Buffer.alloc(20, 1)],
    'a simple reply where chunks were agreed on': (r) => [encodeSimpleReply(r.tag, null)],
    'a simple error where chunks were agreed on': (r) => [encodeSimpleReply(r.tag, 'EIO')],
    'data from before the range': (r) => data(r, true, 511, 1024),
    'data from behind the range': (r) => data(r, true, 512, 1025),
    'data from far away': (r) => data(r, true, 2 ** 50, 1024),
    'data twice': (r) => [...data(r, false, 512, 600), ...data(r, true, 1100, 436)],
    'a hole over data': (r) => [
      ...data(r, false, 512, 1024),
      encodeHole(structured(r, true), 600, 10),
    ],
    'a hole outside': (r) => [encodeHole(structured(r, true), 0, 512)],
    'an empty hole': (r) => [encodeHole(structured(r, true), 512, 0)],
    'not all of it': (r) => data(r, true, 512, 1023),
    'nothing, and then success': (r) => [encodeNone({ style: 'structured', tag: r.tag })],
    'a chunk larger than any': (r) => [
      edited(encodeDataHeader(structured(r, true), 512, 1024), (b) =>
        b.writeUInt32BE(0xffff_ffff, 16),
      ),
    ],
    'data without bytes': (r) => [
      edited(encodeDataHeader(structured(r, true), 512, 0), (b) => b.writeUInt32BE(8, 16)),
    ],
    'a hole of another size': (r) => [
      edited(encodeHole(structured(r, true), 512, 1024), (b) => b.writeUInt32BE(16, 16)),
    ],
    'an end that is not one': (r) => [
      edited(encodeNone({ style: 'structured', tag: r.tag }), (b) => b.writeUInt16BE(0, 4)),
    ],
    'a kind of chunk that nobody knows': (r) => [
      edited(encodeHole(structured(r, true), 512, 1024), (b) => b.writeUInt16BE(77, 6)),
    ],
    'a status': (r) => [encodeStatus(structured(r, true), 7, [{ length: 512, status: 0 }])],
    'an extended status': (r) => [
      edited(
        encodeStatus({ ...structured(r, true), style: 'extended' }, 7, [
          { length: 512, status: 0 },
        ]),
        (b) => {
          b.writeUInt32BE(0x668e33ef, 0);
          b.writeUInt32BE(24, 16);
        },
      ),
    ],
    'an error without one': (r) => [
      edited(encodeError(structured(r, true), 'EIO', ''), (b) => b.writeUInt32BE(0, 20)),
    ],
    'an error whose text is longer than itself': (r) => [
      edited(encodeError(structured(r, true), 'EIO', 'x'), (b) => b.writeUInt16BE(500, 24)),
    ],
    'an error whose text is no text': (r) => [
      edited(encodeError(structured(r, true), 'EIO', 'x'), (b) => b.writeUInt8(0xff, 26)),
    ],
    'an error that is too long': (r) => [
      edited(encodeError(structured(r, true), 'EIO', 'x'), (b) => b.writeUInt32BE(10_000, 16)),
    ],
    'an answer that goes on after its end': (r) => [
      ...data(r, true, 512, 1024),
      ...data(r, true, 512, 1024),
    ],
  };
  test.each(Object.entries(cases))('%s', async (name, reply) => {
    const work = async (client: NbdClient) => {
      await doRead(client);
      // what comes after the end of an answer spoils the next one
      if (name.includes('after its end')) await doRead(client);
    };
    expect(await failureOf(answering(reply), work)).toMatchObject({
      code: expect.stringMatching(/^NBD_(PROTOCOL|LIMIT)$/),
    });
  });

  test('extended headers that repeat another offset', async () => {
    const lie = (request: Request) => {
      const tag = Buffer.from(request.tag);
      tag[15] = 1;
      return [
        encodeDataHeader({ style: 'extended', tag, done: true }, 512, 1024),
        Buffer.alloc(1024),
      ];
    };
    const script: Script = { ...answering(lie), style: 'extended' };
    expect(await failureOf(script, doRead)).toMatchObject({ code: 'NBD_PROTOCOL' });
  });

  test('data that nobody reads', async () => {
    const script = answering((r) => data(r, true, 512, 1024));
    const write = (client: NbdClient) => client.write(512, Buffer.alloc(1024));
    expect(await failureOf(script, write)).toMatchObject({ code: 'NBD_PROTOCOL' });
  });
});

describe('a server that lies about a status', () => {
  const extents = (...lengths: readonly number[]) =>
    lengths.map((length, index) => ({ length, status: index % 2 }));
  const status = (r: Request, done: boolean, context: number, ...lengths: readonly number[]) =>
    encodeStatus(structured(r, done), context, extents(...lengths));
  const cases: Record<string, [(r: Request) => readonly Buffer[], typeof doStatus]> = {
    'of a context nobody chose': [
      (r) => [status(r, false, 1, 1024), status(r, true, 8, 1024)],
      doStatus,
    ],
    twice: [(r) => [status(r, false, 7, 1024), status(r, true, 7, 1024)], doStatus],
    'of one context only': [(r) => [status(r, true, 7, 1024)], doStatus],
    'by a simple reply': [(r) => [encodeSimpleReply(r.tag, null)], doStatus],
    'with an empty extent': [
      (r) => [status(r, false, 7, 0, 1024), status(r, true, 8, 1024)],
      doStatus,
    ],
    'that goes on after the end of the range': [
      (r) => [status(r, false, 7, 1024, 1), status(r, true, 8, 1024)],
      doStatus,
    ],
    'with two extents, where one was asked for': [
      (r) => [status(r, false, 7, 512, 512), status(r, true, 8, 1024)],
      doOne,
    ],
    'longer than the one that was asked for': [
      (r) => [status(r, false, 7, 1025), status(r, true, 8, 1024)],
      doOne,
    ],
    'with half an extent': [
      (r) => [edited(status(r, true, 7, 1024), (b) => b.writeUInt32BE(10, 16))],
      doStatus,
    ],
  };
  test.each(Object.entries(cases))('%s', async (_, [reply, work]) => {
    expect(await failureOf(answering(reply), work)).toMatchObject({
      code: expect.stringMatching(/^NBD_(PROTOCOL|LIMIT)$/),
    });
  });

  test('whose extended chunk counts wrong', async () => {
    const lie = (r: Request) => [
      edited(
        encodeStatus({ style: 'extended', tag: r.tag, done: true }, 7, extents(512, 512)),
        (b) => b.writeUInt32BE(3, 36),
      ),
    ];
    const script: Script = { ...answering(lie), style: 'extended' };
    expect(await failureOf(script, doStatus)).toMatchObject({
      code: 'NBD_PROTOCOL',
      message: expect.stringContaining('counts its extents'),
    });
  });

  test('the truth is believed: the last extent may go on', async () => {
    using files = scratch();
    const path = files.path('nbd');
    const request = (r: Request) => [status(r, false, 8, 9000), status(r, true, 7, 1000, 9000)];
    await using _server = await scriptedServer(path, { style: 'structured', request });
    await using client = await connectNbd({ server: { path }, contexts });
    expect(Object.fromEntries(await doStatus(client))).toEqual({
      'base:allocation': extents(1000, 9000),
      'qemu:x': extents(9000),
    });
  });
});

describe('a server that answers in ways that are odd and allowed', () => {
  test('data in any order, holes between, the end apart', async () => {
    using files = scratch();
    const path = files.path('nbd');
    const request = (r: Request) => [
      ...data(r, false, 1500, 36),
      encodeHole(structured(r, false), 600, 900),
      ...data(r, false, 512, 88),
      encodeNone({ style: 'structured', tag: r.tag }),
    ];
    await using _server = await scriptedServer(path, { style: 'structured', request });
    await using client = await connectNbd({ server: { path } });
    const target = Buffer.alloc(1024, 0xaa);
    await client.read(512, target);
    expect([...target].every((byte, i) => byte === (i < 88 || i >= 988 ? 1 : 0))).toBe(true);
  });

  test('an error at an offset, an error nobody knows, and data with an error: all are errors of the request', async () => {
    using files = scratch();
    const path = files.path('nbd');
    const at = (r: Request, offset: number) => {
      const error = encodeError(structured(r, true), 'ENOSPC', 'full');
      const bytes = Buffer.concat([error, Buffer.alloc(8)]);
      bytes.writeUInt16BE(0x8002, 6);
      bytes.writeUInt32BE(bytes.length - 20, 16);
      bytes.writeUInt32BE(offset, bytes.length - 4);
      return bytes;
    };
    const answers: ((r: Request) => readonly Buffer[])[] = [
      (r) => [at(r, 513)],
      (r) => [
        edited(encodeError(structured(r, true), 'EIO', ''), (b) => b.writeUInt32BE(4711, 20)),
      ],
      (r) => [
        edited(encodeError(structured(r, true), 'EIO', 'odd'), (b) => b.writeUInt16BE(0x9999, 6)),
      ],
      (r) => [...data(r, false, 512, 1024), encodeError(structured(r, true), 'EIO', 'no')],
      (r) => [
        encodeError(structured(r, false), 'EPERM', 'first'),
        encodeError(structured(r, true), 'EIO', 'second'),
      ],
      (r) => [at(r, 511)],
    ];
    let next = 0;
    const request = (r: Request) => answers[next++]?.(r) ?? [];
    await using _server = await scriptedServer(path, { style: 'structured', request });
    await using client = await connectNbd({ server: { path } });
    for (const errno of ['ENOSPC', 'EINVAL', 'EIO', 'EIO', 'EPERM'])
      await expect(doRead(client)).rejects.toMatchObject({ code: 'NBD_ERRNO', details: { errno } });
    await expect(doRead(client)).rejects.toMatchObject({ code: 'NBD_PROTOCOL' });
  });
});

describe('a server that hangs up', () => {
  test('in the middle of data: what is in flight fails, nothing hangs', async () => {
    using files = scratch();
    const path = files.path('nbd');
    const request: Script['request'] = (r, socket) => {
      socket.end(Buffer.concat(data(r, true, 512, 1024)).subarray(0, 300));
      return [];
    };
    await using _server = await scriptedServer(path, { style: 'structured', request });
    await using client = await connectNbd({ server: { path } });
    const all = await Promise.allSettled([doRead(client), doRead(client), client.flush()]);
    for (const each of all) expect(each).toMatchObject({ reason: { code: 'NBD_CONNECT' } });
    await expect(doRead(client)).rejects.toMatchObject({ code: 'NBD_CONNECT' });
  });

  test('and a server that never answers: close waits, unless it is told not to', async () => {
    using files = scratch();
    const path = files.path('nbd');
    await using _server = await scriptedServer(path, { style: 'simple' });
    const client = await connectNbd({ server: { path } });
    const reading = doRead(client).catch((error: unknown) => error);
    const cut = new AbortController();
    let closed = false;
    const closing = client.close({ signal: cut.signal }).then(() => {
      closed = true;
    });
    await expect(client.flush()).rejects.toMatchObject({ code: 'NBD_CLOSED' });
    await sleep(50);
    expect(closed).toBe(false);
    cut.abort();
    await closing;
    expect(await reading).toMatchObject({ code: 'NBD_CONNECT' });
    await client.close({ signal: cut.signal });
  });
});

describe('a server that lies during the handshake', () => {
  const ack = (option: number) => encodeOptionReply(option, OPTION_REPLY.ack);
  const reply = (option: number, type: number, bytes: Buffer) =>
    encodeOptionReply(option, type, bytes);
  const on = (wanted: number, replies: readonly Buffer[]): Partial<Script> => ({
    option: (option) => (option === wanted ? replies : null),
  });
  const facts = reply(OPTION.go, OPTION_REPLY.info, encodeInfoExport({ size: 512, flags: 1 }));
  const sizes = (minimum: number, preferred: number, maximumPayload: number) =>
    reply(
      OPTION.go,
      OPTION_REPLY.info,
      encodeInfoBlockSize({ minimum, preferred, maximumPayload }),
    );
  const context = (id: number, name: string) =>
    reply(OPTION.setMetaContext, OPTION_REPLY.metaContext, encodeMetaContext(id, name));
  const cases: Record<string, [Partial<Script>, string]> = {
    'it is no NBD server': [{ greeting: Buffer.alloc(18, 0x48) }, 'NBD_PROTOCOL'],
    'it greets half': [
      { greeting: edited(encodeGreeting(3), (b) => b.writeUInt32BE(0, 8)) },
      'NBD_PROTOCOL',
    ],
    'it answers another option': [on(OPTION.go, [ack(OPTION.list)]), 'NBD_PROTOCOL'],
    'it answers with another magic': [on(OPTION.go, [Buffer.alloc(20, 1)]), 'NBD_PROTOCOL'],
    'it answers more than anybody reads': [
      on(OPTION.go, [edited(ack(OPTION.go), (b) => b.writeUInt32BE(1 << 20, 16))]),
      'NBD_LIMIT',
    ],
    'it never stops answering': [on(OPTION.go, Array(10_001).fill(facts)), 'NBD_LIMIT'],
    'it does not say the size': [on(OPTION.go, [ack(OPTION.go)]), 'NBD_PROTOCOL'],
    'a size above 8 PiB': [
      on(OPTION.go, [
        edited(Buffer.from(facts), (b) => b.writeUInt32BE(0xffff_ffff, 22)),
        ack(OPTION.go),
      ]),
      'NBD_PROTOCOL',
    ],
    'an item that is cut': [
      on(OPTION.go, [reply(OPTION.go, OPTION_REPLY.info, Buffer.from([0])), ack(OPTION.go)]),
      'NBD_PROTOCOL',
    ],
    'a minimum that is no power of two': [
      on(OPTION.go, [facts, sizes(3, 4096, 4096), ack(OPTION.go)]),
      'NBD_PROTOCOL',
    ],
    'a payload below the minimum': [
      on(OPTION.go, [facts, sizes(512, 512, 0), ack(OPTION.go)]),
      'NBD_PROTOCOL',
    ],
    'a context nobody asked for': [
      on(OPTION.setMetaContext, [context(1, 'x:y'), ack(OPTION.setMetaContext)]),
      'NBD_PROTOCOL',
    ],
    'two contexts of one id': [
      on(OPTION.setMetaContext, [
        context(1, 'base:allocation'),
        context(1, 'qemu:x'),
        ack(OPTION.setMetaContext),
      ]),
      'NBD_PROTOCOL',
    ],
    'it wants TLS': [
      on(OPTION.go, [encodeOptionReply(OPTION.go, OPTION_REPLY.tlsRequired)]),
      'NBD_TLS',
    ],
    'it goes down': [
      on(OPTION.go, [encodeOptionReply(OPTION.go, OPTION_REPLY.shutdown)]),
      'NBD_REFUSED',
    ],
  };
  test.each(Object.entries(cases))('%s', async (_, [script, code]) => {
    using files = scratch();
    const path = files.path('nbd');
    await using _server = await scriptedServer(path, { style: 'structured', ...script });
    await expect(connectNbd({ server: { path }, contexts })).rejects.toMatchObject({ code });
  });

  test('plain bytes behind the agreement to TLS are an attack', async () => {
    using files = scratch();
    const path = files.path('nbd');
    const injected = Buffer.concat([ack(OPTION.startTls), ack(OPTION.extendedHeaders)]);
    const script = { style: 'structured', ...on(OPTION.startTls, [injected]) } as const;
    await using _server = await scriptedServer(path, script);
    const tls = { psk: { identity: 'alice', key: Buffer.alloc(16) } };
    await expect(connectNbd({ server: { path }, tls })).rejects.toMatchObject({
      code: 'NBD_TLS',
      message: expect.stringContaining('plain bytes'),
    });
  });

  test('it says nothing: the time is limited, and a signal ends it', async () => {
    using files = scratch();
    const path = files.path('nbd');
    const silent = createServer(() => {}).listen(path);
    const start = performance.now();
    const options = { server: { path }, handshakeTimeout: 100 };
    await expect(connectNbd(options)).rejects.toMatchObject({ code: 'NBD_CONNECT' });
    await expect(listExports(options)).rejects.toMatchObject({ code: 'NBD_CONNECT' });
    expect(performance.now() - start).toBeLessThan(1000);
    const abort = new AbortController();
    const connecting = connectNbd({ server: { path }, signal: abort.signal });
    setTimeout(() => abort.abort(new Error('enough')), 30);
    await expect(connecting).rejects.toThrow('enough');
    await expect(connectNbd({ server: { path }, signal: abort.signal })).rejects.toThrow('enough');
    silent.close();
    await expect(connectNbd({ server: { path: files.path('nobody') } })).rejects.toMatchObject({
      code: 'NBD_CONNECT',
    });
  });
});

test('our client says goodbye, once, after all answers', async () => {
  using files = scratch();
  const path = files.path('nbd');
  const got: number[] = [];
  const gate = Promise.withResolvers<void>();
  const script: Script = {
    style: 'structured',
    request: ({ command, tag }, socket) => {
      got.push(command);
      void gate.promise.then(() => socket.write(encodeNone({ style: 'structured', tag })));
      return [];
    },
  };
  await using _server = await scriptedServer(path, script);
  const client = await connectNbd({ server: { path } });
  const flushing = [client.flush(), client.flush()];
  const closing = client.close();
  await sleep(30);
  expect(got).toEqual([COMMAND.flush, COMMAND.flush]);
  gate.resolve();
  await Promise.all(flushing);
  await closing;
  await expect.poll(() => got).toEqual([COMMAND.flush, COMMAND.flush, COMMAND.disconnect]);
});

describe('requests that our client does not send', () => {
  test.each([
    ['past the end', (c: NbdClient) => c.read(65_536 - 10, Buffer.alloc(11)), 'NBD_RANGE'],
    ['at a fraction', (c: NbdClient) => c.trim(0.5, 512), 'NBD_RANGE'],
    ['before the start', (c: NbdClient) => c.cache(-1, 512), 'NBD_RANGE'],
    ['of no number', (c: NbdClient) => c.writeZeroes(0, Number.NaN), 'NBD_RANGE'],
    ['of too much data', (c: NbdClient) => c.read(0, Buffer.alloc(33 << 20)), 'NBD_RANGE'],
    ['for the status of nothing', (c: NbdClient) => c.blockStatus(0, 0), 'NBD_RANGE'],
  ] as const)('%s', async (_, work, code) => {
    using files = scratch();
    const path = files.path('nbd');
    const sent: Request[] = [];
    const script: Script = {
      style: 'structured',
      request: (request) => {
        sent.push(request);
        return [];
      },
    };
    await using _server = await scriptedServer(path, script);
    await using client = await connectNbd({ server: { path }, contexts });
    await expect(work(client)).rejects.toMatchObject({ code });
    expect(sent).toEqual([]);
  });

  test('what the server does not offer', async () => {
    using files = scratch();
    const path = files.path('nbd');
    const facts = encodeInfoExport({ size: 512, flags: 1 });
    const replies = [
      encodeOptionReply(OPTION.go, OPTION_REPLY.info, facts),
      encodeOptionReply(OPTION.go, OPTION_REPLY.ack),
    ];
    await using _server = await scriptedServer(path, {
      style: 'simple',
      option: (option) => (option === OPTION.go ? replies : null),
    });
    await using client = await connectNbd({ server: { path } });
    for (const work of [
      client.flush(),
      client.trim(0, 512),
      client.writeZeroes(0, 512),
      client.cache(0, 512),
      client.write(0, Buffer.alloc(512), { fua: true }),
      client.blockStatus(0, 512),
    ])
      await expect(work).rejects.toMatchObject({ code: 'NBD_UNSUPPORTED' });
  });
});
