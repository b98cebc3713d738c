import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, lstatSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test, vi } from 'vitest';
import { command, connectQmp, listenQmp } from '../src/index.ts';
import { scratch, serverOf, Wire } from './support.ts';

/** Leaves a socket on which nobody listens, as a killed process does. */
function leaveSocket(path: string): void {
  const code = `const net = require('node:net'); net.createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`;
  spawnSync(process.execPath, ['-e', code]);
  if (!lstatSync(path).isSocket()) throw new Error('no socket was left');
}

function modeOf(path: string): number {
  return lstatSync(path).mode & 0o7777;
}

describe('a socket', () => {
  test('has mode 0600 in a directory of 0700 that is made, takes clients, and goes', async () => {
    using place = scratch();
    await using server = serverOf();
    const path = place.path('new/deep/qmp.sock');
    const umask = process.umask();
    const ended: unknown[] = [];
    const listener = await listenQmp(server, {
      path,
      onSessionEnd: (broken) => ended.push(broken),
    });
    expect(process.umask()).toBe(umask);
    expect(modeOf(path)).toBe(0o600);
    expect(modeOf(place.path('new/deep'))).toBe(0o700);
    expect(modeOf(place.path('new'))).toBe(0o700);
    const clients = await Promise.all([connectQmp(path), connectQmp(path), connectQmp(path)]);
    for (const client of clients)
      expect(await client.execute('query-version')).toMatchObject({ package: 'test' });
    await listener[Symbol.asyncDispose]();
    expect(existsSync(path)).toBe(false);
    // sessions outlive the listener
    for (const client of clients) {
      await client.execute('query-version');
      await client[Symbol.asyncDispose]();
    }
    while (ended.length < 3) await new Promise((resolve) => setTimeout(resolve, 1));
    expect(server.sessions).toBe(0);
  });

  test('that cannot accept a client says so, and takes the next one', async () => {
    using place = scratch();
    await using server = serverOf();
    const spy = vi.spyOn(net.Server.prototype, 'listen');
    const errors: Error[] = [];
    await using listener = await listenQmp(server, {
      path: place.path('s'),
      onError: (error) => errors.push(error),
    });
    const [listening] = spy.mock.contexts;
    spy.mockRestore();
    const failure = Object.assign(new Error('accept ENOBUFS'), { code: 'ENOBUFS' });
    for (let time = 0; time < 2; time++) (listening as net.Server).emit('error', failure);
    expect(errors).toEqual([failure, failure]);
    await using client = await connectQmp(listener.path);
    await client.execute('query-version');
  });

  test('answers a client that has ended its half, however long that takes', async () => {
    using place = scratch();
    await using server = serverOf({
      commands: { slow: command({ about: '', run: () => sleep(30) }) },
    });
    await using listener = await listenQmp(server, { path: place.path('s') });
    await using wire = Wire.connect(listener.path);
    wire.stream.end(
      '{"execute": "qmp_capabilities"}{"execute": "slow", "id": 1}{"execute": "slow", "id": 2}',
    );
    expect(await wire.message()).toHaveProperty('QMP');
    expect(await wire.message()).toEqual({ return: {} });
    expect(await wire.message()).toEqual({ return: {}, id: 1 });
    expect(await wire.message()).toEqual({ return: {}, id: 2 });
    expect(await wire.line()).toBeNull();
  });

  test('that a dead process left is replaced', async () => {
    using place = scratch();
    const path = place.path('s');
    leaveSocket(path);
    await using server = serverOf();
    await using _ = await listenQmp(server, { path });
    await using client = await connectQmp(path);
    expect(await client.execute('query-commands')).toHaveLength(4);
  });

  test('on which somebody listens is left alone', async () => {
    using place = scratch();
    const path = place.path('s');
    await using server = serverOf();
    await using first = await listenQmp(server, { path });
    await expect(listenQmp(server, { path })).rejects.toMatchObject({
      code: 'QMP_SOCKET_IN_USE',
      details: { path },
    });
    await using client = await connectQmp(first.path);
    expect(client.greeting.capabilities).toEqual([]);
  });

  test('is not put in the place of a file, a link, or under a name that is too long', async () => {
    using place = scratch();
    await using server = serverOf();
    writeFileSync(place.path('file'), 'data');
    symlinkSync(place.path('nowhere'), place.path('link'));
    for (const name of ['file', 'link'])
      await expect(listenQmp(server, { path: place.path(name) })).rejects.toMatchObject({
        code: 'QMP_NOT_A_SOCKET',
      });
    expect(lstatSync(place.path('file')).size).toBe(4);
    expect(lstatSync(place.path('link')).isSymbolicLink()).toBe(true);
    const room = 106 - Buffer.byteLength(place.path());
    await expect(
      listenQmp(server, { path: place.path('é'.repeat(room / 2 + 1)) }),
    ).rejects.toMatchObject({ code: 'QMP_PATH_TOO_LONG' });
    await using _ = await listenQmp(server, { path: place.path('a'.repeat(room)) });
  });

  test('is not put in a directory that others may use, or that is none', async () => {
    using place = scratch();
    await using server = serverOf();
    const unsafe = { code: 'QMP_UNSAFE_DIRECTORY' };
    const listen = async (name: string, sharedDirectory: boolean): Promise<void> => {
      await (await listenQmp(server, { path: place.path(`${name}/s`), sharedDirectory }))[
        Symbol.asyncDispose
      ]();
    };
    for (const [mode, name] of [
      [0o755, 'read'],
      [0o710, 'enter'],
      [0o770, 'group'],
      [0o1777, 'tmp'],
    ] as const) {
      mkdirSync(place.path(name));
      chmodSync(place.path(name), mode);
      await expect(listen(name, false)).rejects.toMatchObject(unsafe);
    }
    await listen('read', true);
    await listen('enter', true);
    await expect(listen('group', true)).rejects.toMatchObject(unsafe);
    await expect(listen('tmp', true)).rejects.toMatchObject(unsafe);
    mkdirSync(place.path('own'), { mode: 0o700 });
    symlinkSync(place.path('own'), place.path('link'));
    await listen('own', false);
    await expect(listen('link', false)).rejects.toMatchObject(unsafe);
    writeFileSync(place.path('file'), '');
    await expect(listen('file', false)).rejects.toMatchObject({ code: 'QMP_SOCKET' });
  });
});

test('a client that is refused is told so', async () => {
  using place = scratch();
  await using server = serverOf({ limits: { sessions: 1 } });
  await using listener = await listenQmp(server, { path: place.path('s') });
  await using _ = await connectQmp(listener.path);
  await expect(connectQmp(listener.path)).rejects.toMatchObject({
    code: 'QMP_CLOSED',
    message: expect.stringContaining('sessions already'),
  });
  await using raw = new Wire(net.connect(listener.path));
  expect(await raw.message()).toHaveProperty('error');
});
