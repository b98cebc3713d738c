import { connect, createServer, type Socket } from 'node:net';
import { expect, test } from 'vitest';
import { connectNbd, type NbdClient, serveNbd } from '../src/index.ts';
import { MemoryExport } from './memory-export.ts';
import { scratch } from './support.ts';

/** A server with a wire in between that can be cut. */
async function stage() {
  const files = scratch();
  const server = await serveNbd({
    listen: { path: files.path('nbd') },
    exports: [['disk', new MemoryExport(1 << 20)]],
  });
  const wires: Socket[] = [];
  const between = createServer((near) => {
    const far = connect(files.path('nbd'));
    wires.push(near, far);
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      from.pipe(to);
      // a cut is no failure of the test
      from.on('error', () => to.destroy());
    }
  });
  await new Promise<void>((done) => between.listen(files.path('wire'), done));
  return {
    server,
    client: () => connectNbd({ server: { path: files.path('wire') }, name: 'disk' }),
    cut: () => {
      for (const wire of wires) wire.destroy();
    },
    async [Symbol.asyncDispose]() {
      for (const wire of wires) wire.destroy();
      await new Promise((done) => between.close(done));
      await server.close({ grace: 100 });
      files[Symbol.dispose]();
    },
  };
}

/** Whether it has resolved by now, and every callback that was due has run. */
async function isGone(client: NbdClient): Promise<boolean> {
  let gone = false;
  void client.gone.then(() => {
    gone = true;
  });
  await new Promise((next) => setImmediate(next));
  return gone;
}

test('gone: not while the connection stands, however many requests were answered or refused', async () => {
  await using on = await stage();
  await using client = await on.client();
  await client.read(0, Buffer.alloc(512));
  await expect(client.read(1 << 20, Buffer.alloc(512))).rejects.toMatchObject({
    code: 'NBD_RANGE',
  });
  expect(await isGone(client)).toBe(false);
});

test.each([
  ['the client closes', (client: NbdClient) => client.close(), 'NBD_CLOSED'],
  [
    'the server stops',
    (_client: NbdClient, on: { server: { close(): Promise<void> } }) => on.server.close(),
    'NBD_',
  ],
  ['the wire is cut', async (_client: NbdClient, on: { cut(): void }) => on.cut(), 'NBD_CONNECT'],
])('gone: when %s; every later call is refused, and it never rejects', async (_who, end, code) => {
  await using on = await stage();
  await using client = await on.client();
  await Promise.all([end(client, on), client.gone]);
  const later = await client.read(0, Buffer.alloc(512)).catch((cause: unknown) => cause);
  expect(later).toMatchObject({ code: expect.stringMatching(code) });
  await client.close();
  await client.gone;
});
