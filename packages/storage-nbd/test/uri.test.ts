import { symlinkSync, writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { locate } from '../src/nbd-uri.ts';
import { scratch } from './support.ts';

test.each([
  [
    'nbd://localhost/disk',
    { host: 'localhost', port: 10_809 },
    'disk',
    'nbd://localhost:10809/disk',
  ],
  [
    'NBD://LocalHost:10809/disk',
    { host: 'localhost', port: 10_809 },
    'disk',
    'nbd://localhost:10809/disk',
  ],
  ['nbd://10.0.0.1:99', { host: '10.0.0.1', port: 99 }, '', 'nbd://10.0.0.1:99/'],
  ['nbd://[::1]:99/', { host: '::1', port: 99 }, '', 'nbd://[::1]:99/'],
  ['nbd://h/a/../b%20%3F', { host: 'h', port: 10_809 }, 'a/../b ?', 'nbd://h:10809/a/../b%20%3F'],
  ['nbd://h//a', { host: 'h', port: 10_809 }, '/a', 'nbd://h:10809//a'],
  ['nbds://h/a', { host: 'h', port: 10_809 }, 'a', 'nbds://h:10809/a'],
])('%s', async (uri, server, exportName, spelt) => {
  const found = await locate(uri);
  expect(found).toMatchObject({ server, exportName, uri: spelt, tls: spelt.startsWith('nbds') });
  expect(await locate(spelt)).toEqual(found);
});

test.each([
  '/images/disk.raw',
  'nbd:localhost:10809',
  'nbd://',
  'nbd://h:0/a',
  'nbd://h:65536/a',
  'nbd://user@h/a',
  'nbd://h/a?socket=/s',
  'nbd://h/a#part',
  'nbd://h/%zz',
  'nbd+unix:///a',
  'nbd+unix:///a?socket=',
  'nbd+unix:///a?socket=/s&tls-psk-file=/k',
  'nbd+unix:///a?path=/s',
  'nbd+unix://h/a?socket=/s',
  'http://h/a',
])('%s is no NBD URI', async (uri) => {
  await expect(locate(uri)).rejects.toMatchObject({
    code: 'STORAGE_NOT_FOUND',
    message: expect.stringContaining('is no NBD URI'),
    details: { file: uri },
  });
});

test('a socket is the same through every link', async () => {
  using files = scratch();
  const socket = files.path('a server=1');
  writeFileSync(socket, '');
  symlinkSync(socket, files.path('link'));
  const [direct, linked] = [
    await locate(`nbd+unix:///x?socket=${encodeURIComponent(socket)}`),
    await locate(`nbd+unix:///x?socket=${files.path('link')}`),
  ];
  expect(linked).toEqual(direct);
  expect(direct.server).toEqual({ path: socket });
  expect(await locate(direct.uri)).toEqual(direct);
  await expect(locate(`nbd+unix:///x?socket=${files.path('none')}`)).rejects.toMatchObject({
    code: 'STORAGE_NOT_FOUND',
    details: { socket: files.path('none') },
  });
});
