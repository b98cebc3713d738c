import { readdirSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { perTier, Random } from '@downfold/compliance';
import { describe, expect, test, vi } from 'vitest';
import {
  COMMAND,
  COMMAND_FLAG,
  connectNbd,
  ERRNO,
  encodeRequestHeader,
  type NbdClient,
  type Style,
  serveNbd,
} from '../src/index.ts';
import { Link } from '../src/link.ts';
import { MappedExport, type MappedStage, mappedStage, toThread } from './mapped-export.ts';
import { MemoryExport } from './memory-export.ts';
import { randomWork } from './random-work.ts';
import { RawClient } from './raw-client.ts';
import { scratch } from './support.ts';

const MiB = 1 << 20;
const styles = (['structured', 'simple', 'extended'] as const).slice(
  0,
  perTier({ quick: 1, ci: 3, long: 3 }),
);

/** A client of ours that a thread serves. */
async function served(on: MappedStage, style: Style = 'structured'): Promise<NbdClient> {
  const client = await connectNbd({ server: { path: on.path }, name: 'disk', style });
  await toThread(on.server, () => client.read(0, Buffer.alloc(512)));
  on.disk.calls.length = 0;
  return client;
}

/** A raw client that a thread serves. */
async function rawServed(on: MappedStage, style: Style = 'structured'): Promise<RawClient> {
  const client = new RawClient(on.path);
  await client.go('disk', style);
  const header = { command: COMMAND.read, cookie: 9_999, length: 512 };
  client.expecting.set(9_999, 512);
  await toThread(on.server, () => client.request(header, { extended: style === 'extended' }));
  client.said.length = 0;
  on.disk.calls.length = 0;
  return client;
}

/** What happens to the socket that a thread gets next: it is over for the thread, or closed. */
function watched({ disk }: MappedStage): string[] {
  const order: string[] = [];
  const { detach } = Link.prototype;
  const spy = vi.spyOn(Link.prototype, 'detach').mockImplementation(function (this: Link) {
    spy.mockRestore();
    this.socket.on('close', () => order.push('closed'));
    return detach.call(this);
  });
  const { map } = disk.direct;
  const removeReader = map.removeReader.bind(map);
  map.removeReader = (reader) => {
    order.push('over');
    removeReader(reader);
  };
  return order;
}

const read = (cookie: number, length = 4096, offset = 0) =>
  encodeRequestHeader({ command: COMMAND.read, flags: 0, cookie, offset, length }, false);

const writeHeader = (cookie: number, offset: number, length: number) =>
  encodeRequestHeader({ command: COMMAND.write, flags: 0, cookie, offset, length }, false);

describe.each(styles)('a connection with a thread, %s', (style) => {
  test('random reads and changes, many at once, agree with a plain buffer', async () => {
    await using on = await mappedStage(2 * MiB);
    const random = new Random(11);
    const model = Buffer.alloc(on.disk.size);
    on.disk.fill(0, random.bytes(on.disk.size));
    on.disk.bytes.copy(model);
    await using client = await served(on, style);
    for (let round = 0; round < 20; round++)
      await randomWork(client, model, random, { slot: 131_072, most: 60_000, kinds: 5 });
    const all = Buffer.alloc(model.length);
    await client.read(0, all);
    expect(all.equals(model)).toBe(true);
    expect(on.disk.bytes.equals(model)).toBe(true);
    expect(on.errors).toEqual([]);
  });

  test('reads of what the map knows are no calls of the export; others are, and are asked to be learnt', async () => {
    await using on = await mappedStage(MiB);
    on.disk.fill(0, Buffer.alloc(65_536, 7));
    await using client = await served(on, style);
    const target = Buffer.alloc(65_536);
    await client.read(0, target);
    expect(target.equals(Buffer.alloc(65_536, 7))).toBe(true);
    expect(on.disk.calls).toEqual([]);
    on.disk.asked.length = 0;
    await client.read(61_440, Buffer.alloc(8192));
    expect(on.disk.named('read')).toMatchObject([{ offset: 61_440, length: 8192 }]);
    expect(on.disk.asked).toEqual([[61_440, 8192]]);
  });
});

describe('what a thread does not serve', () => {
  test('is refused as ever, and the connection lives on', async () => {
    await using on = await mappedStage(MiB);
    on.disk.fill(0, Buffer.alloc(MiB, 1));
    await using client = await rawServed(on);
    const beyond = { command: COMMAND.read, offset: MiB - 100, length: 200 };
    expect(await client.request(beyond)).toMatchObject([{ said: 'error', error: ERRNO.EINVAL }]);
    const flags = { command: COMMAND.read, flags: 0x8000, length: 512 };
    expect(await client.request(flags)).toMatchObject([{ said: 'error', error: ERRNO.EINVAL }]);
    expect(await client.request({ command: 77 })).toMatchObject([{ error: ERRNO.EINVAL }]);
    expect(await client.request({ command: COMMAND.read, length: 512 })).toMatchObject([
      { said: 'data', bytes: Buffer.alloc(512, 1) },
    ]);
    expect(on.disk.calls).toEqual([]);
  });

  test('an error of the export is told, and the file is not shown instead', async () => {
    await using on = await mappedStage(MiB);
    await using client = await rawServed(on);
    on.disk.failure = new Error('broken');
    const [said] = await client.request({ command: COMMAND.read, offset: 8192, length: 512 });
    expect(said).toMatchObject({ said: 'error', error: ERRNO.EIO });
  });

  test('large requests arrive whole, however they are cut', async () => {
    await using on = await mappedStage(8 * MiB);
    await using client = await served(on);
    const bytes = new Random(3).bytes(5 * MiB + 17);
    await client.write(4097, bytes);
    const target = Buffer.alloc(bytes.length);
    await client.read(4097, target);
    expect(target.equals(bytes)).toBe(true);
  });
});

describe('a read that the thread cannot do after all', () => {
  test.each(styles)(
    'beside a write that has come in part: both are served whole, %s',
    async (style) => {
      await using on = await mappedStage(4 * MiB);
      on.disk.fill(0, new Random(5).bytes(4 * MiB));
      await using client = await rawServed(on, style);
      const bytes = new Random(7).bytes(512 * 1024);
      const extended = style === 'extended';
      const header = (command: number, cookie: number, offset: number, length: number) => {
        const flags = extended && command === COMMAND.write ? COMMAND_FLAG.payloadLength : 0;
        return encodeRequestHeader({ command, flags, cookie, offset, length }, extended);
      };
      on.disk.lose(3 * MiB);
      for (const cookie of [1, 2]) client.expecting.set(cookie, 4096);
      // the thread finds out after it has begun to take the write
      client.send(
        Buffer.concat([
          header(COMMAND.read, 1, 3 * MiB, 4096),
          header(COMMAND.write, 3, MiB, bytes.length),
          bytes.subarray(0, 100_000),
        ]),
      );
      await sleep(200);
      client.send(bytes.subarray(100_000), header(COMMAND.read, 2, 3 * MiB + 4096, 4096));
      const over = (cookie: number): boolean =>
        client.said.some((one) => one.cookie === cookie && one.said === 'done');
      await client.until(() => [1, 2, 3].every(over));
      for (const [cookie, at] of [
        [1, 3 * MiB],
        [2, 3 * MiB + 4096],
      ] as const)
        expect(client.said).toContainEqual(
          expect.objectContaining({ cookie, bytes: on.disk.bytes.subarray(at, at + 4096) }),
        );
      expect(on.disk.bytes.subarray(MiB, MiB + bytes.length).equals(bytes)).toBe(true);
      expect(on.errors).toEqual([]);
    },
  );
});

describe('what a client sent before there was a thread', () => {
  test('is served by it, in whole', async () => {
    await using on = await mappedStage(4 * MiB);
    on.disk.fill(0, new Random(9).bytes(4 * MiB));
    // a thread that is idle is taken at the first read
    await (await served(on)).close();
    await expect.poll(() => on.server.threads.serving).toBe(0);
    await using client = new RawClient(on.path);
    await client.go('disk', 'structured');
    const bytes = new Random(10).bytes(300_000);
    const reads = Array.from({ length: 2000 }, (_, index) => index + 1);
    const written = reads.length + 1;
    client.send(
      Buffer.concat([
        ...reads.map((cookie) => read(cookie, 512, 512 * cookie)),
        writeHeader(written, 2 * MiB, bytes.length),
        bytes,
        read(written + 1, 512, 0),
      ]),
    );
    await client.until(
      () => client.said.filter(({ said }) => said === 'done').length === written + 1,
    );
    expect(on.server.threads.serving).toBe(1);
    const shown = new Map(
      client.said.flatMap((one) => (one.said === 'data' ? [[one.cookie, one.bytes]] : [])),
    );
    expect(shown.size).toBe(reads.length + 1);
    for (const cookie of reads)
      expect(shown.get(cookie)).toEqual(on.disk.bytes.subarray(512 * cookie, 512 * cookie + 512));
    expect(on.disk.bytes.subarray(2 * MiB, 2 * MiB + bytes.length).equals(bytes)).toBe(true);
    expect(on.errors).toEqual([]);
  });
});

test('a change that takes long delays no read before there is a thread', async () => {
  await using on = await mappedStage(MiB);
  // the thread is there, and waits
  await (await served(on)).close();
  await expect.poll(() => on.server.threads.idle).toBe(1);
  const { promise, resolve } = Promise.withResolvers<void>();
  on.disk.writeZeroes = () => promise;
  await using client = await connectNbd({ server: { path: on.path }, name: 'disk' });
  const zeros = client.writeZeroes(0, 4096);
  for (let time = 0; time < 20; time++) await client.read(8192, Buffer.alloc(512));
  expect(on.server.threads.serving).toBe(0);
  resolve();
  await zeros;
  await expect.poll(() => on.server.threads.serving).toBe(1);
});

test('a client that has more under way than is let in gets a thread, though not all of it are reads', async () => {
  await using on = await mappedStage(MiB);
  await (await served(on)).close();
  await expect.poll(() => on.server.threads.idle).toBe(1);
  await using client = await connectNbd({ server: { path: on.path }, name: 'disk' });
  const all = Array.from({ length: 600 }, (_, index) =>
    index % 10 === 0
      ? client.write(512 * index, Buffer.alloc(512))
      : client.read(512 * index, Buffer.alloc(512)),
  );
  await Promise.all(all);
  expect(on.server.threads.serving).toBe(1);
});

describe('the end of a connection with a thread', () => {
  test('garbage drops its sender, with what it says', async () => {
    await using on = await mappedStage(MiB);
    await using bad = await rawServed(on);
    const write = { command: COMMAND.write, flags: 0, cookie: 3, offset: 0, length: 4096 };
    bad.send(Buffer.alloc(28, 0x47), encodeRequestHeader(write, false), Buffer.alloc(4096));
    await bad.gone();
    expect(on.disk.calls).toEqual([]);
    expect(on.errors).toMatchObject([{ code: 'NBD_PROTOCOL' }]);
    await expect.poll(() => on.server.clients).toBe(0);
    expect(on.server.threads.serving).toBe(0);
  });

  test('garbage of a client that would get an idle thread next drops it, and nothing behind it is looked at', async () => {
    await using on = await mappedStage(MiB);
    const first = await served(on);
    await using bad = new RawClient(on.path);
    await bad.go('disk', 'structured');
    for (let cookie = 1; cookie <= 12; cookie++)
      await bad.request({ command: COMMAND.read, cookie, length: 512 });
    await first.close();
    await expect.poll(() => on.server.threads.idle).toBe(1);
    on.disk.calls.length = 0;
    const garbage = Buffer.alloc(28, 0x47);
    bad.send(Buffer.concat([garbage, writeHeader(99, 0, 4096), Buffer.alloc(4096), garbage]));
    await bad.gone();
    await expect.poll(() => on.server.clients).toBe(0);
    expect(on.disk.calls).toEqual([]);
    expect(on.errors).toMatchObject([{ code: 'NBD_PROTOCOL' }]);
    // the thread is there for the next one
    await (await served(on)).close();
  });

  test('a client that dies in the middle of anything leaves nothing behind; its thread serves the next', async () => {
    await using on = await mappedStage(4 * MiB);
    on.disk.fill(0, Buffer.alloc(4 * MiB, 1));
    for (let time = 0; time < 8; time++) {
      const client = await rawServed(on);
      const write = { command: COMMAND.write, flags: 0, cookie: 3, offset: 0, length: MiB };
      client.socket.pause();
      for (let cookie = 1; cookie < 20; cookie++) client.send(read(cookie, MiB));
      client.send(encodeRequestHeader(write, false), Buffer.alloc(1000 * time));
      if (time % 2 === 0) await sleep(10);
      client.socket.destroy();
      await expect.poll(() => on.server.clients).toBe(0);
    }
    expect(on.disk.named('write')).toEqual([]);
    expect(on.disk.direct.map.idle()).toBe(null);
  });

  test('DISC: what was asked before it is answered', async () => {
    await using on = await mappedStage(MiB);
    on.disk.fill(0, Buffer.alloc(4096, 1));
    await using client = await rawServed(on);
    const disconnect = { command: COMMAND.disconnect, flags: 0, cookie: 9, offset: 0, length: 0 };
    client.send(read(1), read(2, 4096, 65_536), encodeRequestHeader(disconnect, false), read(3));
    await client.gone();
    const answered = client.said.filter(({ said }) => said === 'done').map(({ cookie }) => cookie);
    expect(answered.sort()).toEqual([1, 2]);
  });

  test.each(['ends its side', 'hangs up'])(
    'what a client asked for before DISC is done, though more than is under way at once: it %s',
    async (how) => {
      await using on = await mappedStage(MiB);
      await using client = await rawServed(on);
      const { promise, resolve } = Promise.withResolvers<void>();
      on.disk.gate = promise;
      const cookies = Array.from({ length: 40 }, (_, index) => index + 1);
      const writes = cookies.map((cookie) => [writeHeader(cookie, 0, 512), Buffer.alloc(512)]);
      const disconnect = {
        command: COMMAND.disconnect,
        flags: 0,
        cookie: 99,
        offset: 0,
        length: 0,
      };
      client.send(Buffer.concat([...writes.flat(), encodeRequestHeader(disconnect, false)]));
      await expect.poll(() => on.disk.named('write').length).toBe(16);
      if (how === 'hangs up') await client[Symbol.asyncDispose]();
      else client.socket.end();
      await sleep(30);
      resolve();
      if (how !== 'hangs up') await client.gone();
      await expect.poll(() => on.server.clients).toBe(0);
      expect(on.disk.named('write').length).toBe(40);
      const answered = client.said.filter(({ said }) => said === 'done').length;
      expect(answered).toBe(how === 'hangs up' ? 0 : 40);
    },
  );

  test('calls that would go on for long end when the client hangs up, though more of them wait', async () => {
    await using on = await mappedStage(MiB);
    await using client = await rawServed(on);
    let under = 0;
    on.disk.cache = async (_offset, _length, { signal }) => {
      signal.throwIfAborted();
      under += 1;
      await new Promise((resolve) => signal.addEventListener('abort', resolve));
      under -= 1;
      throw signal.reason;
    };
    const cache = { command: COMMAND.cache, flags: 0, offset: 0, length: MiB };
    for (let cookie = 1; cookie <= 40; cookie++)
      client.send(encodeRequestHeader({ ...cache, cookie }, false));
    await expect.poll(() => under).toBe(16);
    await client[Symbol.asyncDispose]();
    await expect.poll(() => on.server.clients).toBe(0);
    expect(under).toBe(0);
  });

  test('a client that ended its side before the thread had its socket hears all answers; the socket is closed behind the thread', async () => {
    await using on = await mappedStage(MiB);
    on.disk.fill(0, new Random(13).bytes(MiB));
    await (await served(on)).close();
    await expect.poll(() => on.server.threads.idle).toBe(1);
    const order = watched(on);
    await using client = new RawClient(on.path);
    await client.go('disk', 'structured');
    const { promise, resolve } = Promise.withResolvers<void>();
    on.disk.gate = promise;
    const reads = (count: number, from: number) =>
      Buffer.concat(Array.from({ length: count }, (_, index) => read(from + index, 4096)));
    client.send(reads(8, 0));
    await expect.poll(() => on.disk.named('read').length).toBe(8);
    // they wait in the socket, with the end behind them
    client.socket.pause();
    client.socket.end(reads(2000, 8));
    await sleep(50);
    resolve();
    await expect.poll(() => on.server.threads.serving).toBe(1);
    await sleep(50);
    expect(order).toEqual([]);
    client.socket.resume();
    await client.gone();
    expect(client.said.filter(({ said }) => said === 'done').length).toBe(2008);
    await expect.poll(() => order).toEqual(['over', 'closed']);
    expect(on.errors).toEqual([]);
  });

  test('closing the server wakes a thread that waits; what comes is ESHUTDOWN', async () => {
    await using on = await mappedStage(MiB);
    on.disk.fill(0, Buffer.alloc(4096, 1));
    await using idle = await rawServed(on);
    const begun = performance.now();
    await on.server.close({ grace: 5000 });
    await idle.gone();
    expect(performance.now() - begun).toBeLessThan(2500);
  });

  test('a call that is under way is waited for; reads that come meanwhile are ESHUTDOWN', async () => {
    await using on = await mappedStage(MiB);
    on.disk.fill(0, Buffer.alloc(4096, 1));
    await using client = await rawServed(on);
    const { promise, resolve } = Promise.withResolvers<void>();
    on.disk.gate = promise;
    client.send(read(1, 4096, 65_536));
    await expect.poll(() => on.disk.named('read').length).toBe(1);
    const closing = on.server.close();
    client.send(read(2));
    await client.until(() => client.said.some(({ said }) => said === 'error'));
    expect(client.said).toMatchObject([{ cookie: 2, error: ERRNO.ESHUTDOWN }, { said: 'done' }]);
    resolve();
    await closing;
    expect(client.said.at(-1)).toMatchObject({ said: 'done', cookie: 1 });
  });

  test('a client that takes no answers is cut off after the grace', async () => {
    await using on = await mappedStage(4 * MiB);
    on.disk.fill(0, Buffer.alloc(4 * MiB, 1));
    await using client = await rawServed(on);
    client.socket.pause();
    for (let cookie = 1; cookie < 40; cookie++) client.send(read(cookie, MiB));
    await sleep(50);
    const begun = performance.now();
    await on.server.close({ grace: 100 });
    expect(performance.now() - begun).toBeLessThan(2500);
    client.socket.resume();
    await client.gone();
  });

  test('a client that takes no answers holds up no change', async () => {
    await using on = await mappedStage(4 * MiB, { threads: 1 });
    on.disk.fill(0, Buffer.alloc(4 * MiB, 1));
    await using slow = await rawServed(on);
    slow.socket.pause();
    for (let cookie = 1; cookie < 40; cookie++) slow.send(read(cookie, MiB));
    await sleep(50);
    await using other = await connectNbd({ server: { path: on.path }, name: 'disk' });
    await other.write(0, Buffer.alloc(4 * MiB, 2));
    expect(on.disk.bytes[0]).toBe(2);
  });
});

test('reads never show a change by halves, nor what was before it, once it was answered', async () => {
  await using on = await mappedStage(MiB);
  await using reader = await served(on);
  await using writer = await connectNbd({ server: { path: on.path }, name: 'disk' });
  for (let value = 1; value < 200; value++) {
    await writer.write(0, Buffer.alloc(8192, value));
    const reads = Array.from({ length: 4 }, async () => {
      const target = Buffer.alloc(8192);
      await reader.read(0, target);
      expect(target.equals(Buffer.alloc(8192, value))).toBe(true);
    });
    await Promise.all(reads);
  }
});

test('reads beside changes of the same bytes show one of them, whole', async () => {
  await using on = await mappedStage(MiB);
  on.disk.fill(0, Buffer.alloc(131_072, 1));
  await using reader = await served(on);
  await using writer = await connectNbd({ server: { path: on.path }, name: 'disk' });
  let isOver = false;
  let torn = 0;
  const reading = Array.from({ length: 4 }, async () => {
    while (!isOver) {
      const target = Buffer.alloc(131_072);
      await reader.read(0, target);
      if (!target.equals(Buffer.alloc(131_072, target[0]))) torn += 1;
    }
  });
  for (let value = 1; value < 150; value++) await writer.write(0, Buffer.alloc(131_072, value));
  isOver = true;
  await Promise.all(reading);
  expect(torn).toBe(0);
});

test('threads are for so many connections, plain, of exports with a map; reads are counted either way', async () => {
  using files = scratch();
  const counted: [command: number, bytes: number][] = [];
  const mapped = await new MappedExport(MiB).ready();
  mapped.fill(0, Buffer.alloc(MiB, 4));
  await using server = await serveNbd({
    listen: { path: files.path('nbd') },
    exports: [
      ['mapped', mapped],
      ['plain', new MemoryExport(MiB)],
    ],
    limits: { threads: 1 },
    onAnswer: () => (command, length, _errno, _milliseconds, count) =>
      void counted.push([command, length * (count ?? 1)]),
  });
  const connected = (name: string) => connectNbd({ server: { path: files.path('nbd') }, name });
  await using first = await connected('mapped');
  const bytes = Buffer.alloc(1000);
  let reads = 0;
  await toThread(server, async () => {
    reads += 1;
    await first.read(0, bytes);
  });
  await using second = await connected('mapped');
  await using third = await connected('plain');
  for (let time = 0; time < 600; time++) await second.read(4096, bytes);
  for (let time = 0; time < 20; time++) await third.read(0, bytes);
  expect(server.threads.serving).toBe(1);
  server.settle();
  server.settle();
  const total = counted.reduce((sum, [, length]) => sum + length, 0);
  expect(Math.round(total)).toBe((reads + 620) * 1000);
});

test('a client that is slow to take its answers makes no read slow', async () => {
  using files = scratch();
  let milliseconds = 0;
  const disk = await new MappedExport(MiB).ready();
  disk.fill(0, Buffer.alloc(MiB, 4));
  await using server = await serveNbd({
    listen: { path: files.path('nbd') },
    exports: [['disk', disk]],
    limits: { threads: 1 },
    onAnswer: () => (_command, _length, _errno, each, count) => {
      milliseconds += each * (count ?? 1);
    },
  });
  await using client = new RawClient(files.path('nbd'));
  await client.go('disk', 'structured');
  const header = { command: COMMAND.read, cookie: 9_999, length: 512 };
  client.expecting.set(9_999, 512);
  await toThread(server, () => client.request(header, {}));
  server.settle();
  milliseconds = 0;
  client.socket.pause();
  for (let cookie = 1; cookie <= 40; cookie++) client.send(read(cookie, 65_536));
  await sleep(600);
  client.socket.resume();
  await client.request({ ...header, cookie: 10_000 }, {});
  server.settle();
  expect(milliseconds).toBeGreaterThan(0);
  expect(milliseconds).toBeLessThan(300);
});

test('servers that end leave no threads and no open files', async () => {
  const before = readdirSync('/proc/self/fd').length;
  for (let time = 0; time < 3; time++) {
    await using on = await mappedStage(MiB);
    await using _client = await served(on);
  }
  // the files of the three disks are open until the test is over
  await expect.poll(() => readdirSync('/proc/self/fd').length).toBeLessThanOrEqual(before + 3);
});
