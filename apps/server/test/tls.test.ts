import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { connectNbd } from '@downfold/nbd';
import { expect, it } from 'vitest';
import { Objects } from '../src/options/objects.ts';
import { Bench, haveTools, MIB, makeChain, type Started } from './support.ts';

const haveOpenssl = spawnSync('openssl', ['version'], { stdio: 'ignore' }).status === 0;

/** Serves over TCP with a TLS object. Resolves with the port. */
async function serveTls(bench: Bench, ...objects: readonly string[]): Promise<number> {
  await makeChain(bench, { disk: [1] });
  const server: Started = await bench.serve(
    ...objects.flatMap((object) => ['--object', object]),
    '--blockdev',
    'qcow2,node-name=disk,file.driver=file,file.filename=disk.qcow2',
    '--nbd-server',
    'addr.type=inet,addr.host=localhost,addr.port=0,tls-creds=tls0',
    '--export',
    'nbd,id=e0,node-name=disk,name=disk',
  );
  return Number(/nbds:\/\/[^:]+:(\d+)/.exec(server.stderr)?.[1]);
}

it.skipIf(!haveTools)('keys: who has one is let in, who has none is not', async () => {
  await using bench = new Bench();
  const key = 'ab'.repeat(32);
  mkdirSync(bench.file('keys'));
  writeFileSync(bench.file('keys/keys.psk'), `alice:${key}\n`);
  const port = await serveTls(bench, `tls-creds-psk,id=tls0,dir=${bench.file('keys')}`);
  const uri = `localhost:${port}/disk`;
  const path = bench.file('keys/keys.psk');
  const info = await bench.must('nbdinfo', '--json', `nbds://alice@${uri}?tls-psk-file=${path}`);
  expect(JSON.parse(info)).toMatchObject({ TLS: true, exports: [{ 'export-size': 16 * MIB }] });
  expect((await bench.run('nbdinfo', `nbds://bob@${uri}?tls-psk-file=${path}`)).code).not.toBe(0);
  expect((await bench.run('nbdinfo', `nbd://${uri}`)).code).not.toBe(0);
});

it.skipIf(!haveOpenssl)('certificates, with a private key that a secret unlocks', async () => {
  await using bench = new Bench();
  mkdirSync(bench.file('pki'));
  await bench.must(
    'openssl',
    ...'req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -days 2 -subj /CN=localhost'.split(
      ' ',
    ),
    ...'-addext subjectAltName=DNS:localhost -passout pass:sesame'.split(' '),
    ...'-keyout pki/server-key.pem -out pki/server-cert.pem'.split(' '),
  );
  writeFileSync(bench.file('word'), Buffer.from('sesame').toString('base64'));
  const port = await serveTls(
    bench,
    `secret,id=word,file=${bench.file('word')},format=base64`,
    `tls-creds-x509,id=tls0,dir=${bench.file('pki')},endpoint=server,verify-peer=off,passwordid=word`,
  );
  const ca = readFileSync(bench.file('pki/server-cert.pem'), 'utf8');
  const server = { host: 'localhost', port };
  await using client = await connectNbd({
    server,
    name: 'disk',
    tls: { ca, serverName: 'localhost' },
  });
  expect(client.info.size).toBe(16 * MIB);
  await expect(connectNbd({ server, name: 'disk' })).rejects.toMatchObject({ code: 'NBD_TLS' });
});

it('objects that cannot be used are refused, and say why', async () => {
  await using bench = new Bench();
  const objects = new Objects();
  objects.add({ 'qom-type': 'secret', id: 's', data: 'x' });
  expect(() => objects.add({ 'qom-type': 'secret', id: 's', data: 'x' })).toThrow(/already/);
  expect(() => objects.add({ 'qom-type': 'secret', id: 't' })).toThrow("either 'data' or 'file'");
  const dir = bench.path;
  expect(() => objects.add({ 'qom-type': 'tls-creds-x509', id: 'c', dir })).toThrow(
    /server-key.pem/,
  );
  writeFileSync(bench.file('keys.psk'), 'alice\n');
  expect(() => objects.add({ 'qom-type': 'tls-creds-psk', id: 'k', dir })).toThrow('NAME:HEX');
  expect(() => objects.tls('s')).toThrow("No TLS credentials with id 's'");
});
