import { readFileSync, writeFileSync } from 'node:fs';
import { foreignServer, Random } from '@downfold/compliance';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  type ClientTls,
  connectNbd,
  type Endpoint,
  encodeOption,
  listExports,
  OPTION,
  OPTION_REPLY,
  serveNbd,
} from '../src/index.ts';
import { type Authority, makeAuthority } from './certificates.ts';
import { MemoryExport } from './memory-export.ts';
import { RawClient } from './raw-client.ts';
import { havePeers, run, scratch } from './support.ts';

const MiB = 1 << 20;
const key = Buffer.from('00112233445566778899aabbccddeeff', 'hex');
const loopback: Endpoint = { host: '127.0.0.1', port: 0 };

function disk(): MemoryExport {
  const of = new MemoryExport(MiB);
  of.fill(5000, new Random(1).bytes(300_000));
  return of;
}

describe.skipIf(!havePeers)('TLS', () => {
  let files: ReturnType<typeof scratch>;
  let ours: Authority;
  let theirs: Authority;

  beforeAll(() => {
    files = scratch();
    ours = makeAuthority(files.path('ours'));
    theirs = makeAuthority(files.path('theirs'));
    writeFileSync(files.path('psk'), `alice:${key.toString('hex')}\n`, { mode: 0o600 });
  });
  afterAll(() => files[Symbol.dispose]());

  const serve = async (of: MemoryExport, errors: unknown[] = []) =>
    await serveNbd({
      listen: loopback,
      tls: { ...ours.server, ca: ours.ca },
      exports: [['disk', of]],
      onError: (error) => errors.push(error),
    });
  const certified = (): ClientTls => ({ ...ours.client, ca: ours.ca, serverName: 'localhost' });
  const port = (endpoint: Endpoint) => ('port' in endpoint ? endpoint.port : 0);

  test('nbdinfo and nbdcopy with certificates, several connections, both ways', async () => {
    const [from, to] = [disk(), new MemoryExport(MiB)];
    await using server = await serve(from);
    server.add('to', to);
    const uri = (name: string) =>
      `nbds://localhost:${port(server.endpoint)}/${name}?tls-certificates=${ours.folder}`;
    const info = JSON.parse(await run('nbdinfo', '--json', uri('disk')));
    expect(info).toMatchObject({ TLS: true, structured: true });
    await run('nbdcopy', '--connections=4', uri('disk'), files.path('copy.raw'));
    expect(readFileSync(files.path('copy.raw')).equals(from.bytes)).toBe(true);
    await run('nbdcopy', '--connections=4', files.path('copy.raw'), uri('to'));
    expect(to.bytes.equals(from.bytes)).toBe(true);
  });

  test('a client without TLS sees no export, not even a name', async () => {
    const of = disk();
    await using server = await serve(of);
    const plain = `nbd://localhost:${port(server.endpoint)}`;
    await expect(run('nbdinfo', `${plain}/disk`)).rejects.toThrow();
    await expect(run('nbdinfo', '--list', plain)).rejects.toThrow();
    const server_ = { host: '127.0.0.1', port: port(server.endpoint) };
    await expect(connectNbd({ server: server_, name: 'disk' })).rejects.toMatchObject({
      code: 'NBD_TLS',
    });
    await expect(listExports({ server: server_ })).rejects.toMatchObject({ code: 'NBD_TLS' });
    expect(of.calls).toEqual([]);
  });

  test("a client without a certificate, or with a stranger's, does not come in", async () => {
    const of = disk();
    const errors: unknown[] = [];
    await using server = await serve(of, errors);
    const address = { host: '127.0.0.1', port: port(server.endpoint) };
    const strangers: ClientTls[] = [
      { ca: ours.ca, serverName: 'localhost' },
      { ca: ours.ca, serverName: 'localhost', ...theirs.client },
      // a certificate of the same authority, and a key that is not its own
    ];
    for (const tls of strangers)
      await expect(connectNbd({ server: address, name: 'disk', tls })).rejects.toMatchObject({
        name: 'NbdError',
      });
    await expect(
      run('nbdinfo', `nbds://localhost:${address.port}/disk?tls-certificates=${theirs.folder}`),
    ).rejects.toThrow();
    expect(errors.length).toBeGreaterThanOrEqual(3);
    for (const error of errors) expect(error).toMatchObject({ code: 'NBD_TLS' });
    await using good = await connectNbd({ server: address, name: 'disk', tls: certified() });
    await good.read(0, Buffer.alloc(512));
    expect(of.named('read').length).toBe(1);
  });

  test('our client trusts only whom it was told to trust', async () => {
    await using server = await serve(disk());
    const server_ = { host: '127.0.0.1', port: port(server.endpoint) };
    const wrong: ClientTls[] = [
      { ...ours.client, ca: theirs.ca, serverName: 'localhost' },
      { ...ours.client, ca: ours.ca, serverName: 'elsewhere.example' },
    ];
    for (const tls of wrong)
      await expect(connectNbd({ server: server_, name: 'disk', tls })).rejects.toMatchObject({
        code: 'NBD_TLS',
      });
    // by default, the name is that of the host
    await using good = await connectNbd({
      server: server_,
      name: 'disk',
      tls: { ...ours.client, ca: ours.ca },
    });
    await good.flush();
  });

  test('a client that wants TLS does not go on without it', async () => {
    const path = files.path('plain');
    await using _server = await serveNbd({ listen: { path }, exports: [['disk', disk()]] });
    await expect(
      connectNbd({ server: { path }, name: 'disk', tls: certified() }),
    ).rejects.toMatchObject({ code: 'NBD_TLS', message: 'the server has no TLS' });
  });

  test('shared keys: nbdinfo, nbdcopy and our client; strangers stay out', async () => {
    const of = disk();
    await using server = await serveNbd({
      listen: loopback,
      tls: { psk: (identity) => (identity === 'alice' ? key : null) },
      exports: [['disk', of]],
    });
    const at = port(server.endpoint);
    const uri = (user: string) =>
      `nbds://${user}@localhost:${at}/disk?tls-psk-file=${files.path('psk')}`;
    expect(JSON.parse(await run('nbdinfo', '--json', uri('alice')))).toMatchObject({ TLS: true });
    await run('nbdcopy', uri('alice'), files.path('psk.raw'));
    expect(readFileSync(files.path('psk.raw')).equals(of.bytes)).toBe(true);
    const server_ = { host: '127.0.0.1', port: at };
    const as = (identity: string, secret: Uint8Array) =>
      connectNbd({ server: server_, name: 'disk', tls: { psk: { identity, key: secret } } });
    await using client = await as('alice', key);
    const bytes = Buffer.alloc(MiB);
    await client.read(0, bytes);
    expect(bytes.equals(of.bytes)).toBe(true);
    await expect(as('bob', key)).rejects.toMatchObject({ code: 'NBD_TLS' });
    await expect(as('alice', Buffer.alloc(16, 1))).rejects.toMatchObject({ code: 'NBD_TLS' });
  });

  test.each(['nbdkit', 'qemu-nbd'])('our client and %s, with certificates', async (tool) => {
    const path = files.path(`${tool}.sock`);
    const raw = files.path(`${tool}.raw`);
    writeFileSync(raw, Buffer.alloc(MiB));
    const args =
      tool === 'nbdkit'
        ? [
            '-f',
            '-U',
            path,
            '--tls=require',
            '--tls-verify-peer',
            `--tls-certificates=${ours.folder}`,
            'file',
            raw,
          ]
        : [
            '-t',
            '-e',
            '4',
            '-k',
            path,
            '-f',
            'raw',
            '--object',
            `tls-creds-x509,id=t,endpoint=server,dir=${ours.folder},verify-peer=on`,
            '--tls-creds',
            't',
            raw,
          ];
    // nbdkit hangs up on whoever only looks whether it is there; that is fine
    await using _server = await foreignServer({ path }, tool, ...args);
    await expect(connectNbd({ server: { path } })).rejects.toMatchObject({ code: 'NBD_TLS' });
    await using client = await connectNbd({ server: { path }, tls: certified() });
    const bytes = new Random(2).bytes(MiB);
    await client.write(0, bytes);
    await client.flush();
    const back = Buffer.alloc(MiB);
    await client.read(0, back);
    expect(back.equals(bytes)).toBe(true);
    await client.close();
    expect(readFileSync(raw).equals(bytes)).toBe(true);
  });

  test.each(['nbdkit', 'qemu-nbd'])('our client and %s, with a shared key', async (tool) => {
    const path = files.path(`${tool}-psk.sock`);
    const raw = files.path(`${tool}-psk.raw`);
    writeFileSync(raw, Buffer.alloc(MiB, 3));
    writeFileSync(files.path('keys.psk'), readFileSync(files.path('psk')), { mode: 0o600 });
    const args =
      tool === 'nbdkit'
        ? ['-f', '-U', path, '--tls=require', `--tls-psk=${files.path('psk')}`, 'file', raw]
        : [
            '-t',
            '-e',
            '4',
            '-k',
            path,
            '-f',
            'raw',
            '--object',
            `tls-creds-psk,id=t,endpoint=server,dir=${files.path('.')}`,
            '--tls-creds',
            't',
            raw,
          ];
    await using _server = await foreignServer({ path }, tool, ...args);
    await using client = await connectNbd({
      server: { path },
      tls: { psk: { identity: 'alice', key } },
    });
    const back = Buffer.alloc(512);
    await client.read(0, back);
    expect(back.every((byte) => byte === 3)).toBe(true);
  });

  test('plain bytes behind STARTTLS never count as said in secret: their sender is dropped', async () => {
    const path = files.path('inject');
    const errors: unknown[] = [];
    await using _server = await serveNbd({
      listen: { path },
      tls: { ...ours.server },
      exports: [['disk', disk()]],
      onError: (error) => errors.push(error),
    });
    await using client = new RawClient(path);
    await client.greet();
    expect(await client.final(OPTION.list)).toBe(OPTION_REPLY.tlsRequired);
    expect(await client.final(4711)).toBe(OPTION_REPLY.tlsRequired);
    client.send(Buffer.concat([encodeOption(OPTION.startTls), encodeOption(OPTION.abort)]));
    await client.gone();
    expect(errors).toMatchObject([
      { code: 'NBD_PROTOCOL', message: expect.stringContaining('plain bytes') },
    ]);
    // nobody gets an export by name without TLS either
    await using old = new RawClient(path);
    await old.greet();
    old.send(encodeOption(OPTION.exportName, Buffer.from('disk')));
    await old.gone();
  });

  test('after TLS is up it is not started again', async () => {
    const path = files.path('twice');
    const tls = { ...ours.server };
    await using _server = await serveNbd({ listen: { path }, tls, exports: [['disk', disk()]] });
    await using client = new RawClient(path);
    await client.greet();
    expect(await client.final(OPTION.startTls)).toBe(OPTION_REPLY.ack);
    await client.secure({ ca: ours.ca, servername: 'localhost' });
    expect(await client.final(OPTION.startTls)).toBe(OPTION_REPLY.invalid);
    await client.enter('disk', 'simple');
  });

  test('keys that are none are refused before anybody connects', async () => {
    await expect(
      serveNbd({ listen: loopback, tls: { key: 'no key', cert: 'no certificate' } }),
    ).rejects.toMatchObject({ code: 'NBD_TLS' });
  });
});

test.each(['0.0.0.0', '192.0.2.1', '::', 'example.org'])(
  'without TLS, %s is not served',
  async (host) => {
    await expect(serveNbd({ listen: { host, port: 0 } })).rejects.toMatchObject({
      code: 'NBD_INSECURE',
    });
  },
);
