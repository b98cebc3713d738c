import { chmodSync, existsSync, statSync, writeFileSync } from 'node:fs';
import { connect, createServer, Server } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test, vi } from 'vitest';
import {
  type CallOptions,
  COMMAND,
  connectNbd,
  ERRNO,
  encodeInfoQuery,
  encodeOption,
  encodeRequestHeader,
  OPTION,
  OPTION_REPLY,
  type ServerLimits,
  serveNbd,
} from '../src/index.ts';
import { MemoryExport } from './memory-export.ts';
import { RawClient } from './raw-client.ts';
import { type Stage, stageOf } from './stage.ts';
import { scratch } from './support.ts';

const MiB = 1 << 20;

const stage = (limits: ServerLimits = {}): Promise<Stage<MemoryExport>> =>
  stageOf(new MemoryExport(MiB), limits, 100);

/** Calls of the export wait until `open`. */
function gate(disk: MemoryExport): { open(): void } {
  const { promise, resolve } = Promise.withResolvers<void>();
  disk.gate = promise;
  return { open: resolve };
}

const read = (cookie: number, length = 4096) =>
  encodeRequestHeader({ command: COMMAND.read, flags: 0, cookie, offset: 0, length }, false);

/** So many writes, and DISC, in one piece. */
function writesAndLeave(count: number): Buffer {
  const header = { command: COMMAND.write, flags: 0, cookie: 99, offset: 0, length: 512 };
  const writes = Array.from({ length: count }, (_, cookie) => [
    encodeRequestHeader({ ...header, cookie, offset: 512 * cookie }, false),
    Buffer.alloc(512, cookie),
  ]);
  const leave = encodeRequestHeader({ ...header, command: COMMAND.disconnect, length: 0 }, false);
  return Buffer.concat([...writes.flat(), leave]);
}

/** A client that asked for a read and hung up; the read is under way until the gate is opened. */
async function leftBehind(on: Stage<MemoryExport>): Promise<{ open(): void }> {
  const held = gate(on.disk);
  await using client = new RawClient(on.path);
  await client.go('disk', 'simple');
  client.send(read(1));
  await expect.poll(() => on.disk.named('read').length).toBe(1);
  return held;
}

describe('one client does not harm others', () => {
  test('slow handshakes are cut off, however busy they look', async () => {
    await using on = await stage({ handshakeTimeout: 150 });
    const start = performance.now();
    await using silent = new RawClient(on.path);
    await using dripping = new RawClient(on.path);
    await dripping.greet();
    const option = encodeOption(OPTION.go, encodeInfoQuery({ name: 'disk', infos: [] }));
    const drip = setInterval(() => dripping.send(option.subarray(0, 1)), 20);
    await using busy = new RawClient(on.path);
    await busy.greet();
    const asking = (async () => {
      for (;;) await busy.final(OPTION.list);
    })();
    await Promise.all([silent.gone(), dripping.gone(), asking.catch(() => busy.gone())]);
    clearInterval(drip);
    const took = performance.now() - start;
    expect(took).toBeGreaterThan(100);
    expect(took).toBeLessThan(1000);
    expect(on.errors.length).toBe(3);
    for (const error of on.errors) expect(error).toMatchObject({ code: 'NBD_CONNECT' });
  });

  test('after the handshake there is no such clock', async () => {
    await using on = await stage({ handshakeTimeout: 100 });
    await using client = await connectNbd({ server: { path: on.path }, name: 'disk' });
    await sleep(250);
    await client.flush();
  });

  test('garbage drops its sender only', async () => {
    await using on = await stage();
    await using good = await connectNbd({ server: { path: on.path }, name: 'disk' });
    await using bad = new RawClient(on.path);
    await bad.go('disk', 'simple');
    bad.send(Buffer.alloc(28, 0x47));
    await bad.gone();
    expect(on.errors).toMatchObject([{ code: 'NBD_PROTOCOL' }]);
    await good.flush();
  });

  test('what comes behind garbage is not done, not even when an answer that was stuck gives way', async () => {
    await using on = await stage();
    on.disk.fill(0, Buffer.alloc(MiB, 1));
    await using bad = new RawClient(on.path);
    await bad.go('disk', 'simple');
    bad.socket.pause();
    bad.send(read(1, MiB));
    await expect.poll(() => on.disk.named('read').length).toBe(1);
    await sleep(30);
    const write = { command: COMMAND.write, flags: 0, cookie: 3, offset: 0, length: 4096 };
    const garbage = Buffer.alloc(28, 0x47);
    bad.send(Buffer.concat([garbage, encodeRequestHeader(write, false), Buffer.alloc(4096)]));
    await expect.poll(() => on.server.clients).toBe(0);
    expect(on.disk.calls.map(({ call }) => call)).toEqual(['read']);
    expect(on.errors.length).toBe(1);
  });

  test('more clients than allowed are closed as they come; a place that is free is given again', async () => {
    await using on = await stage({ clients: 2 });
    const first = await connectNbd({ server: { path: on.path }, name: 'disk' });
    await using _second = await connectNbd({ server: { path: on.path }, name: 'disk' });
    const third = connectNbd({ server: { path: on.path }, name: 'disk' });
    await expect(third).rejects.toMatchObject({ code: 'NBD_CONNECT' });
    expect(on.errors).toMatchObject([{ code: 'NBD_LIMIT' }]);
    expect(on.server.clients).toBe(2);
    await first.close();
    await expect.poll(() => on.server.clients).toBe(1);
    await using again = await connectNbd({ server: { path: on.path }, name: 'disk' });
    await again.flush();
  });

  test('requests under way are limited in number', async () => {
    await using on = await stage({ requests: 4 });
    const held = gate(on.disk);
    await using client = new RawClient(on.path);
    await client.go('disk', 'structured');
    for (let cookie = 1; cookie <= 50; cookie++) client.send(read(cookie));
    await sleep(50);
    expect(on.disk.named('read').length).toBe(4);
    held.open();
    await client.until(() => client.said.filter(({ said }) => said === 'done').length === 50);
    expect(on.disk.named('read').length).toBe(50);
  });

  test('requests that wait do so in the socket, not in the memory of the server', async () => {
    await using on = await stage({ requests: 2 });
    const held = gate(on.disk);
    await using client = new RawClient(on.path);
    await client.go('disk', 'simple');
    const write = { command: COMMAND.write, flags: 0, offset: 0, length: MiB };
    for (let cookie = 1; cookie <= 20; cookie++)
      client.send(encodeRequestHeader({ ...write, cookie }, false), Buffer.alloc(MiB));
    await expect.poll(() => on.disk.named('write').length).toBe(2);
    await sleep(100);
    expect(client.socket.writableLength).toBeGreaterThan(15 * MiB);
    held.open();
    await client.until(() => client.said.filter(({ said }) => said === 'done').length === 20);
  });

  test('requests under way are limited in bytes, and one is always let in', async () => {
    await using on = await stage({ bytes: 10_000 });
    const held = gate(on.disk);
    await using client = new RawClient(on.path);
    await client.go('disk', 'structured');
    client.send(read(1, 65_536), read(2), read(3));
    await sleep(50);
    expect(on.disk.named('read').length).toBe(1);
    held.open();
    await client.until(() => client.said.filter(({ said }) => said === 'done').length === 3);
  });

  test('who does not take replies gets no more of them', async () => {
    await using on = await stage({ requests: 8 });
    on.disk.fill(0, Buffer.alloc(MiB, 1));
    await using client = new RawClient(on.path);
    await client.go('disk', 'structured');
    client.socket.pause();
    for (let cookie = 1; cookie <= 100; cookie++) client.send(read(cookie, MiB));
    await sleep(150);
    // what the socket's buffer holds has left; the limit is of what has not
    expect(on.disk.named('read').length).toBeLessThan(20);
    client.socket.resume();
    await client.until(() => client.said.filter(({ said }) => said === 'done').length === 100);
  });

  test('who asks and asks during the handshake and takes no answer is not served for ever', async () => {
    await using on = await stage();
    for (let i = 0; i < 200; i++) on.server.add(`${i}`.padEnd(2000, 'x'), on.disk);
    await using client = new RawClient(on.path);
    await client.greet();
    client.socket.pause();
    const before = process.memoryUsage().rss;
    for (let i = 0; i < 2000; i++) client.send(encodeOption(OPTION.list));
    await sleep(100);
    // all answers would have 800 MB
    expect(process.memoryUsage().rss - before).toBeLessThan(100 * MiB);
  });
});

describe('the end of a connection', () => {
  test('DISC: what was asked before it is done and answered, what comes after it is not', async () => {
    await using on = await stage();
    const held = gate(on.disk);
    await using client = new RawClient(on.path);
    await client.go('disk', 'structured');
    const disc = { command: COMMAND.disconnect, flags: 0, cookie: 9, offset: 0, length: 0 };
    client.send(read(1), read(2), encodeRequestHeader(disc, false), read(3));
    await sleep(30);
    held.open();
    await client.gone();
    expect(client.said.filter(({ said }) => said === 'done').map(({ cookie }) => cookie)).toEqual([
      1, 2,
    ]);
    expect(on.disk.named('read').length).toBe(2);
    expect(on.errors).toEqual([]);
  });

  describe('what a client asked for before DISC is done, though more than is under way at once', () => {
    test('when it ends its side with it: all is answered', async () => {
      await using on = await stage();
      const held = gate(on.disk);
      await using client = new RawClient(on.path);
      await client.go('disk', 'structured');
      client.socket.end(writesAndLeave(40));
      await expect.poll(() => on.disk.named('write').length).toBe(16);
      await sleep(30);
      held.open();
      await client.gone();
      expect(on.disk.named('write').length).toBe(40);
      expect(client.said.filter(({ said }) => said === 'done').length).toBe(40);
    });

    test('when it hangs up behind it: the connection is over no sooner', async () => {
      await using on = await stage();
      const held = gate(on.disk);
      const client = new RawClient(on.path);
      await client.go('disk', 'structured');
      client.send(writesAndLeave(40));
      await expect.poll(() => on.disk.named('write').length).toBe(16);
      await client[Symbol.asyncDispose]();
      await sleep(30);
      const removed = on.server.remove('disk');
      held.open();
      await removed;
      expect(on.disk.named('write').length).toBe(40);
      await expect.poll(() => on.server.clients).toBe(0);
    });

    test('but not after the grace of a removal', async () => {
      await using on = await stage();
      const held = gate(on.disk);
      const client = new RawClient(on.path);
      await client.go('disk', 'structured');
      client.send(writesAndLeave(40));
      await expect.poll(() => on.disk.named('write').length).toBe(16);
      await client[Symbol.asyncDispose]();
      const removed = on.server.remove('disk', { grace: 20 });
      await sleep(60);
      held.open();
      await removed;
      await expect.poll(() => on.server.clients).toBe(0);
      expect(on.disk.named('write').length).toBe(16);
    });
  });

  test('a client that ends its side without DISC hears the answers to all that it asked', async () => {
    await using on = await stage();
    const held = gate(on.disk);
    await using client = new RawClient(on.path);
    await client.go('disk', 'structured');
    client.socket.end(Buffer.concat(Array.from({ length: 40 }, (_, cookie) => read(cookie))));
    await expect.poll(() => on.disk.named('read').length).toBe(16);
    await sleep(30);
    held.open();
    await client.gone();
    expect(client.said.filter(({ said }) => said === 'done').length).toBe(40);
    expect(on.errors).toEqual([]);
  });

  test('a client that ends its side within its handshake is hung up on', async () => {
    await using on = await stage();
    await using silent = new RawClient(on.path);
    await silent.take(18);
    silent.socket.end();
    await silent.gone();
    await using haggling = new RawClient(on.path);
    await haggling.greet();
    await haggling.option(OPTION.structuredReply);
    haggling.socket.end();
    await haggling.gone();
    await expect.poll(() => on.server.clients).toBe(0);
  });

  test('closing the server: what is under way finishes, what comes is ESHUTDOWN, then all is closed', async () => {
    await using on = await stage();
    const held = gate(on.disk);
    await using client = new RawClient(on.path);
    await client.go('disk', 'structured');
    await using haggling = new RawClient(on.path);
    await haggling.greet();
    await haggling.option(OPTION.structuredReply);
    await using silent = new RawClient(on.path);
    await silent.take(18);
    client.send(read(1));
    await expect.poll(() => on.disk.named('read').length).toBe(1);
    let closed = false;
    const closing = on.server.close().then(() => {
      closed = true;
    });
    await silent.gone();
    client.send(read(2));
    const length = 4096;
    const write = { command: COMMAND.write, flags: 0, cookie: 3, offset: 0, length };
    client.send(encodeRequestHeader(write, false), Buffer.alloc(length));
    await client.until(() => client.said.some(({ cookie }) => cookie === 3));
    expect(client.said.filter(({ said }) => said === 'error')).toMatchObject([
      { cookie: 2, error: ERRNO.ESHUTDOWN },
      { cookie: 3, error: ERRNO.ESHUTDOWN },
    ]);
    expect(await haggling.final(OPTION.list)).toBe(OPTION_REPLY.shutdown);
    await haggling.gone();
    expect(closed).toBe(false);
    await expect(connectNbd({ server: { path: on.path } })).rejects.toMatchObject({
      code: 'NBD_CONNECT',
    });
    held.open();
    await client.gone();
    expect(client.said.filter(({ said }) => said === 'done').map(({ cookie }) => cookie)).toEqual([
      2, 3, 1,
    ]);
    await closing;
    expect(on.disk.named('write')).toEqual([]);
    expect(on.server.clients).toBe(0);
    expect(existsSync(on.path)).toBe(false);
  });

  test('removing an export whose client is gone, and has left work behind', async () => {
    await using on = await stage();
    const held = await leftBehind(on);
    const removed = on.server.remove('disk');
    setTimeout(() => held.open(), 20);
    await removed;
    await expect.poll(() => on.server.clients).toBe(0);
  });

  test('closing waits for the export even when the client is gone', async () => {
    await using on = await stage();
    const held = await leftBehind(on);
    let closed = false;
    const closing = on.server.close({ grace: 10 }).then(() => {
      closed = true;
    });
    await sleep(60);
    expect(closed).toBe(false);
    held.open();
    await closing;
  });

  describe('a call that would go on for long', () => {
    const cache = { command: COMMAND.cache, flags: 0, offset: 0, length: MiB };
    const zeros = { ...cache, command: COMMAND.writeZeroes };
    const leave = { ...cache, command: COMMAND.disconnect, length: 0, cookie: 99 };

    /** Whose calls of `cache` and `writeZeroes` end when they are told to, and not before. */
    function endless(disk: MemoryExport): { readonly under: Set<string> } {
      const under = new Set<string>();
      const until = async (what: string, { signal }: CallOptions): Promise<never> => {
        signal.throwIfAborted();
        under.add(what);
        await new Promise((resolve) => signal.addEventListener('abort', resolve));
        under.delete(what);
        throw signal.reason;
      };
      let count = 0;
      disk.cache = (_offset, _length, how) => until(`cache ${count++}`, how);
      disk.writeZeroes = (_offset, _length, how) => until('zeros', how);
      return { under };
    }

    const request = (call: typeof cache | typeof zeros, cookie: number) =>
      encodeRequestHeader({ ...call, cookie }, false);
    /** 40 calls of `cache`, but for one of zeros. */
    const forty = (zerosAt: number) =>
      Array.from({ length: 40 }, (_, cookie) =>
        request(cookie === zerosAt ? zeros : cache, cookie),
      );

    /** A client that has sent `calls`, of which so many are under way. */
    async function begun(on: Stage<MemoryExport>, calls: readonly Buffer[], count: number) {
      const { under } = endless(on.disk);
      const client = new RawClient(on.path);
      await client.go('disk', 'structured');
      client.send(Buffer.concat(calls));
      await expect.poll(() => under.size).toBe(count);
      return { client, under };
    }

    test.each([
      ['and the connection with it', forty(15).slice(0, 16)],
      ['though more of them wait', forty(15)],
    ])('ends when its client hangs up, %s', async (_, calls) => {
      await using on = await stage();
      const { client, under } = await begun(on, calls, 16);
      await client[Symbol.asyncDispose]();
      await expect.poll(() => on.server.clients).toBe(0);
      expect(under.size).toBe(0);
      // nothing failed
      expect(on.errors).toEqual([]);
    });

    test.each([
      ['that it would leave', [request(cache, 0), request(zeros, 1)], 2],
      ['behind much else that it would leave', forty(0), 16],
    ])(
      'a client that said %s still wants its zeros, until the server closes',
      async (_, calls, count) => {
        await using on = await stage();
        const left = [...calls, encodeRequestHeader(leave, false)];
        const { client, under } = await begun(on, left, count);
        await client[Symbol.asyncDispose]();
        await expect.poll(() => [...under]).toEqual(['zeros']);
        await on.server.close({ grace: 50 });
        expect(under.size).toBe(0);
      },
    );

    test('ends when the grace of a removal is over, though the client waits', async () => {
      await using on = await stage();
      const { client, under } = await begun(on, [request(zeros, 1)], 1);
      await using _client = client;
      await on.server.remove('disk', { grace: 50 });
      expect(under.size).toBe(0);
    });
  });

  test('who hung up counts as a client until its calls are over', async () => {
    await using on = await stage({ clients: 1 });
    const held = await leftBehind(on);
    const refused = connectNbd({ server: { path: on.path }, name: 'disk' });
    await expect(refused).rejects.toMatchObject({ code: 'NBD_CONNECT' });
    expect(on.errors).toMatchObject([{ code: 'NBD_LIMIT' }]);
    held.open();
    await expect.poll(() => on.server.clients).toBe(0);
    await using again = await connectNbd({ server: { path: on.path }, name: 'disk' });
    await again.flush();
  });

  test('clients that do not take their answers are cut off after the grace', async () => {
    await using on = await stage();
    on.disk.fill(0, Buffer.alloc(MiB, 1));
    await using client = new RawClient(on.path);
    await client.go('disk', 'structured');
    client.socket.pause();
    for (let cookie = 1; cookie <= 8; cookie++) client.send(read(cookie, MiB));
    await sleep(50);
    const start = performance.now();
    await on.server.close({ grace: 100 });
    expect(performance.now() - start).toBeLessThan(1000);
    client.socket.resume();
    await client.gone();
  });

  test('removing an export ends its clients, and no others', async () => {
    await using on = await stage();
    on.server.add('kept', new MemoryExport(4096));
    await using gone = new RawClient(on.path);
    await gone.go('disk', 'structured');
    await using kept = await connectNbd({ server: { path: on.path }, name: 'kept' });
    const held = gate(on.disk);
    gone.send(read(1));
    await expect.poll(() => on.disk.named('read').length).toBe(1);
    const removed = on.server.remove('disk');
    setTimeout(() => held.open(), 20);
    await removed;
    await gone.gone();
    expect(on.server.clients).toBe(1);
    await kept.flush();
    await expect(connectNbd({ server: { path: on.path }, name: 'disk' })).rejects.toMatchObject({
      code: 'NBD_REFUSED',
      details: { reply: 'unknown' },
    });
  });

  test('our client leaves a server that says ESHUTDOWN, after the rest has been answered', async () => {
    await using on = await stage();
    const held = gate(on.disk);
    await using client = await connectNbd({ server: { path: on.path }, name: 'disk' });
    const [first, target] = [Buffer.alloc(512), Buffer.alloc(512)];
    on.disk.fill(0, Buffer.alloc(512, 3));
    const early = client.read(0, first);
    await expect.poll(() => on.disk.named('read').length).toBe(1);
    const closing = on.server.close();
    await expect(client.read(0, target)).rejects.toMatchObject({ details: { errno: 'ESHUTDOWN' } });
    await expect(client.read(0, target)).rejects.toMatchObject({ code: 'NBD_CLOSED' });
    held.open();
    await early;
    expect(first.every((byte) => byte === 3)).toBe(true);
    await closing;
  });
});

describe('where a server listens', () => {
  test('a Unix socket is for its owner alone, and goes with the server', async () => {
    await using on = await stage();
    expect(statSync(on.path).mode & 0o777).toBe(0o600);
    const before = process.umask();
    expect(before).not.toBe(0o177);
    await on.server.close();
    expect(existsSync(on.path)).toBe(false);
  });

  test('a socket that a dead server left is replaced; one that lives, or a file, is not', async () => {
    using files = scratch();
    const dead = files.path('dead');
    await leaveDeadSocket(dead);
    expect(existsSync(dead)).toBe(true);
    await using server = await serveNbd({ listen: { path: dead } });
    await expect(serveNbd({ listen: { path: dead } })).rejects.toMatchObject({
      code: 'NBD_LISTEN',
    });
    expect(server.endpoint).toEqual({ path: dead });
    const file = files.path('file');
    writeFileSync(file, 'precious');
    await expect(serveNbd({ listen: { path: file } })).rejects.toMatchObject({
      code: 'NBD_LISTEN',
    });
    expect(existsSync(file)).toBe(true);
    const nowhere = files.path('no/such/folder');
    await expect(serveNbd({ listen: { path: nowhere } })).rejects.toMatchObject({
      code: 'NBD_LISTEN',
    });
  });

  test('a connection that cannot be accepted is reported, and the server lives on', async () => {
    const spy = vi.spyOn(Server.prototype, 'listen');
    await using on = await stage();
    const [listening] = spy.mock.contexts;
    spy.mockRestore();
    // what Node does when the kernel is out of memory for the socket
    const failure = Object.assign(new Error('accept ENOBUFS'), { code: 'ENOBUFS' });
    for (let time = 0; time < 2; time++) (listening as Server).emit('error', failure);
    expect(on.errors).toEqual([failure, failure]);
    await using client = await connectNbd({ server: { path: on.path }, name: 'disk' });
    await client.flush();
  });

  test('TCP on loopback, any free port', async () => {
    const exports = [['', new MemoryExport(512)]] as const;
    await using server = await serveNbd({ listen: { host: '127.0.0.1', port: 0 }, exports });
    const { endpoint } = server;
    if (!('port' in endpoint)) throw new Error('a port was asked for');
    expect(endpoint.port).toBeGreaterThan(0);
    await using client = await connectNbd({ server: endpoint });
    await client.flush();
    await expect(serveNbd({ listen: endpoint })).rejects.toMatchObject({ code: 'NBD_LISTEN' });
  });
});

/** A socket file with nobody behind it: moved away from its server before that could remove it. */
async function leaveDeadSocket(path: string): Promise<void> {
  const { linkSync } = await import('node:fs');
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(`${path}.first`, resolve));
  linkSync(`${path}.first`, path);
  await new Promise<void>((resolve) => {
    server.close(() => resolve());
  });
  chmodSync(path, 0o600);
  const refused = await new Promise<string>((resolve) => {
    connect(path).once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? ''));
  });
  if (refused !== 'ECONNREFUSED') throw new Error(`the socket is not dead: ${refused}`);
}
