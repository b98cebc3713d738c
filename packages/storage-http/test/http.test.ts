import type { ServerResponse } from 'node:http';
import { assertSameBytes } from '@downfold/compliance';
import type { Storage } from '@downfold/storage';
import { hostOffset } from '@downfold/units';
import { describe, expect, test } from 'vitest';
import { redirected } from '../src/http-client.ts';
import { httpBackend } from '../src/index.ts';
import { etagOf, type RangeServer, rangeServer } from './range-server.ts';

const KiB = 1 << 10;
const MiB = 1 << 20;
const CHUNK = 256 * KiB;

function pattern(length: number, seed = 1): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let at = 0; at < length; at++) bytes[at] = (at * 31 + (at >> 8) * 7 + seed) & 0xff;
  return bytes;
}

async function readAt(file: Storage, offset: number, length: number): Promise<Uint8Array> {
  const target = new Uint8Array(length);
  await file.read(hostOffset(offset), target);
  return target;
}

/** A server with one file of 2 MiB, `/disk`. */
async function served(bytes = pattern(2 * MiB)): Promise<RangeServer & { readonly url: string }> {
  const server = await rangeServer();
  server.files.set('/disk', bytes);
  return Object.assign(server, { url: `${server.origin}/disk` });
}

const backend = httpBackend();

describe('requests', () => {
  test('small reads share chunks, also those on their way; large ones go past them', async () => {
    await using server = await served();
    await using file = await backend.open(server.url, 'read');
    const bytes = pattern(2 * MiB);
    const reads = Array.from({ length: 100 }, (_, index) => readAt(file, index * 1000, 700));
    for (const [index, found] of (await Promise.all(reads)).entries())
      assertSameBytes(found, bytes.subarray(index * 1000, index * 1000 + 700), `read ${index}`);
    assertSameBytes(
      await readAt(file, CHUNK - 5, 10),
      bytes.subarray(CHUNK - 5, CHUNK + 5),
      'seam',
    );
    assertSameBytes(await readAt(file, 1, MiB), bytes.subarray(1, MiB + 1), 'a large read');
    expect(server.ranges).toEqual([
      'bytes=0-0',
      `bytes=0-${CHUNK - 1}`,
      `bytes=${CHUNK}-${2 * CHUNK - 1}`,
      `bytes=1-${MiB}`,
    ]);
  });

  test('what is kept is bounded: 32 chunks, the least recently used go', async () => {
    await using server = await served(pattern(40 * CHUNK));
    await using file = await backend.open(server.url, 'read');
    const touch = (chunk: number) => readAt(file, chunk * CHUNK, 1);
    for (let chunk = 0; chunk < 32; chunk++) await touch(chunk);
    await touch(0);
    await touch(32);
    const before = server.ranges.length;
    await touch(0);
    expect(server.ranges.length).toBe(before);
    await touch(1);
    expect(server.ranges.length).toBe(before + 1);
  });

  test('connections are kept, and never more than six', async () => {
    await using server = await served(pattern(20 * MiB));
    await using file = await backend.open(server.url, 'read');
    const opened = server.connections();
    for (let chunk = 0; chunk < 10; chunk++) await readAt(file, chunk * CHUNK, 1);
    expect(server.connections() - opened).toBe(1);
    await Promise.all(Array.from({ length: 40 }, (_, at) => readAt(file, at * 1000, 300 * KiB)));
    expect(server.connections() - opened).toBe(6);
  });

  test('a kept connection that the server has closed costs nothing', async () => {
    await using server = await served();
    await using file = await backend.open(server.url, 'read');
    await readAt(file, 0, 1);
    let closed = 0;
    server.meddle = (request) => {
      if (closed > 0) return false;
      closed += 1;
      request.socket.resetAndDestroy();
      return true;
    };
    assertSameBytes(await readAt(file, MiB, 9), pattern(2 * MiB).subarray(MiB, MiB + 9), 'bytes');
    expect(closed).toBe(1);
  });

  test('a new connection that is cut is an error, and no more', async () => {
    await using server = await served();
    server.meddle = (request) => {
      request.socket.resetAndDestroy();
      return true;
    };
    await expect(backend.open(server.url, 'read')).rejects.toMatchObject({
      code: 'STORAGE_IO',
      details: { file: server.url, errno: 'ECONNRESET' },
    });
    expect(server.ranges).toHaveLength(1);
  });
});

describe('a file that is replaced while it is open', () => {
  test.each(['etag', 'last-modified'] as const)('is an error, and final: %s', async (validator) => {
    await using server = await served();
    server.validator = validator;
    await using file = await backend.open(server.url, 'read');
    await readAt(file, 0, 100);
    const old = server.files.get('/disk') as Uint8Array;
    server.files.set('/disk', pattern(2 * MiB, 2));
    if (validator === 'last-modified')
      server.meddle = (_, response) => {
        const set = response.setHeader.bind(response);
        response.setHeader = (name, value) =>
          set(name, name === 'last-modified' ? new Date(0).toUTCString() : value);
        return false;
      };
    const changed = { code: 'STORAGE_CHANGED', details: { file: server.url, offset: MiB } };
    await expect(readAt(file, MiB, 300 * KiB)).rejects.toMatchObject(changed);
    // what was read ahead is of the old version: it does not go with what is there now
    server.files.set('/disk', old);
    server.meddle = () => false;
    const asked = server.ranges.length;
    for (const offset of [0, CHUNK])
      await expect(readAt(file, offset, 100)).rejects.toMatchObject(changed);
    expect(server.ranges.length).toBe(asked);
    await using again = await backend.open(server.url, 'read');
    assertSameBytes(await readAt(again, 0, 100), pattern(100), 'opened again');
  });

  test('also by a server that does not know conditions: its tag and its length are looked at', async () => {
    await using server = await served();
    const bytes = pattern(2 * MiB);
    const send = (response: ServerResponse, etag: string, total: number) => {
      const range = `bytes 0-${CHUNK - 1}/${total}`;
      response.writeHead(206, { etag, 'content-range': range }).end(bytes.subarray(0, CHUNK));
      return true;
    };
    for (const [etag, total, said] of [
      ['"another"', 2 * MiB, 'etag is "another"'],
      [etagOf(bytes), 2 * MiB + 1, `its length is ${2 * MiB + 1}`],
    ] as const) {
      server.meddle = () => false;
      await using file = await backend.open(server.url, 'read');
      server.meddle = (_, response) => send(response, etag, total);
      const error = await readAt(file, 0, 1).catch((cause) => cause);
      expect(error).toMatchObject({ code: 'STORAGE_CHANGED', details: { offset: 0 } });
      expect(error.message).toContain(said);
    }
  });

  test('every request says which version it is for', async () => {
    await using server = await served();
    await using file = await backend.open(server.url, 'read');
    const said: unknown[] = [];
    server.meddle = ({ headers }) => {
      said.push(headers['if-match'] ?? headers['if-unmodified-since']);
      return false;
    };
    await readAt(file, 0, 1);
    server.validator = 'last-modified';
    await using dated = await backend.open(server.url, 'read');
    await readAt(dated, 0, 1);
    expect(said).toEqual([etagOf(pattern(2 * MiB)), undefined, expect.stringContaining(' GMT')]);
  });

  test('also midway through a read that takes several requests', async () => {
    await using server = await served(pattern(20 * MiB));
    await using file = await backend.open(server.url, 'read');
    server.meddle = (_, __, nth) => {
      if (nth === 3) server.files.set('/disk', pattern(20 * MiB, 9));
      return false;
    };
    await expect(readAt(file, 0, 20 * MiB)).rejects.toMatchObject({
      code: 'STORAGE_CHANGED',
      details: { offset: 8 * MiB },
    });
  });
});

describe('servers that misbehave', () => {
  const at = (offset: number | undefined, code: string, said: string | RegExp) => ({
    code,
    message: expect.stringMatching(said),
    ...(offset === undefined ? {} : { details: expect.objectContaining({ offset }) }),
  });

  test('that ignores ranges is refused when opened, and when it begins to later', async () => {
    await using server = await served();
    const ignore: RangeServer['meddle'] = (request) => {
      delete request.headers.range;
      return false;
    };
    await using file = await backend.open(server.url, 'read');
    server.meddle = ignore;
    await expect(backend.open(server.url, 'read')).rejects.toMatchObject(
      at(undefined, 'STORAGE_UNSUPPORTED', 'does not serve ranges'),
    );
    await expect(readAt(file, 5 * KiB, 5)).rejects.toMatchObject(
      at(0, 'STORAGE_IO', 'sends everything'),
    );
  });

  test.each([
    ['a range that was not asked for', { 'content-range': `bytes 1-${CHUNK}/${2 * MiB}` }],
    ['a shorter one', { 'content-range': `bytes 0-${CHUNK - 2}/${2 * MiB}` }],
    ['none', { 'content-range': undefined }],
    ['several', { 'content-type': 'multipart/byteranges; boundary=x', 'content-range': undefined }],
    ['an unknown length', { 'content-range': `bytes 0-${CHUNK - 1}/*` }],
  ])('that answers with %s', async (_, others) => {
    await using server = await served();
    await using file = await backend.open(server.url, 'read');
    server.meddle = (_request, response) => {
      const headers: Record<string, string> = { etag: etagOf(pattern(2 * MiB)) };
      for (const [name, value] of Object.entries(others))
        if (value !== undefined) headers[name] = value;
      response.writeHead(206, headers).end(pattern(CHUNK));
      return true;
    };
    await expect(readAt(file, 0, 9)).rejects.toMatchObject(
      at(0, 'STORAGE_IO', 'asked for bytes 0-'),
    );
  });

  test.each([
    ['short', CHUNK - 1, undefined, 'shorter'],
    ['long', CHUNK + 1, undefined, 'longer'],
    ['cut off', 1000, CHUNK, /1000 of \d+ bytes came/],
  ])('whose body is %s', async (_, sent, promised, said) => {
    await using server = await served();
    await using file = await backend.open(server.url, 'read');
    server.meddle = (_request, response) => {
      response.writeHead(206, {
        etag: etagOf(pattern(2 * MiB)),
        'content-range': `bytes 0-${CHUNK - 1}/${2 * MiB}`,
        ...(promised === undefined ? {} : { 'content-length': promised }),
      });
      response.write(pattern(sent), () => (promised ? response.destroy() : response.end()));
      return true;
    };
    await expect(readAt(file, 0, 9)).rejects.toMatchObject(at(0, 'STORAGE_IO', said));
    server.meddle = () => false;
    assertSameBytes(await readAt(file, 0, 9), pattern(9), 'nothing of it was kept');
  });

  test('that compresses', async () => {
    await using server = await served();
    server.meddle = (request, response) => {
      expect(request.headers['accept-encoding']).toBe('identity');
      response.setHeader('content-encoding', 'gzip');
      return false;
    };
    await expect(backend.open(server.url, 'read')).rejects.toMatchObject(
      at(undefined, 'STORAGE_UNSUPPORTED', "encoded \\('gzip'\\)"),
    );
  });

  test('that switches protocols, which nobody asked for', async () => {
    await using server = await served();
    await using file = await backend.open(server.url, 'read');
    server.meddle = ({ socket }) => {
      const head = 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n';
      socket.write(`${head}\r\n`);
      return true;
    };
    await expect(readAt(file, 0, 9)).rejects.toMatchObject({
      ...at(0, 'STORAGE_IO', /no answer from 127.*: the connection was given up without one/),
      details: { errno: 'EPROTO' },
    });
    server.meddle = () => false;
    assertSameBytes(await readAt(file, 0, 9), pattern(9), 'a later read');
  });

  test('that says nothing, or stops in the middle', async () => {
    await using server = await served();
    await using file = await httpBackend({ timeout: 300 }).open(server.url, 'read');
    server.meddle = () => true;
    await expect(readAt(file, 0, 9)).rejects.toMatchObject(
      at(0, 'STORAGE_IO', 'silent for 300 ms'),
    );
    server.meddle = (_, response) => {
      const range = `bytes 0-${CHUNK - 1}/${2 * MiB}`;
      response.writeHead(206, { etag: etagOf(pattern(2 * MiB)), 'content-range': range });
      response.write(pattern(1000));
      return true;
    };
    await expect(readAt(file, 0, 9)).rejects.toMatchObject(
      at(0, 'STORAGE_IO', /1000 of \d+ bytes came: silent for 300 ms/),
    );
    server.meddle = () => false;
    assertSameBytes(await readAt(file, 0, 9), pattern(9), 'a later read');
  });

  test.each([
    [
      'weak tags',
      (server: RangeServer) => {
        server.validator = 'weak';
      },
    ],
    [
      'no version',
      (server: RangeServer) => {
        server.meddle = (_, response) => {
          response.writeHead(206, { 'content-range': 'bytes 0-0/9' }).end('x');
          return true;
        };
      },
    ],
    [
      'a date of this very second',
      (server: RangeServer) => {
        server.meddle = (_, response) => {
          const date = new Date().toUTCString();
          const headers = { date, 'last-modified': date, 'content-range': 'bytes 0-0/9' };
          response.writeHead(206, headers).end('x');
          return true;
        };
      },
    ],
  ])('that knows %s', async (_, change) => {
    await using server = await served();
    change(server);
    await expect(backend.open(server.url, 'read')).rejects.toMatchObject(
      at(undefined, 'STORAGE_UNSUPPORTED', 'names no version'),
    );
  });

  test.each([
    [404, 'STORAGE_NOT_FOUND'],
    [403, 'STORAGE_ACCESS'],
    [503, 'STORAGE_IO'],
  ])('that answers %i', async (status, code) => {
    await using server = await served();
    await using file = await backend.open(server.url, 'read');
    server.meddle = (_, response) => {
      response.writeHead(status).end('why');
      return true;
    };
    const error = { code, details: { status, file: server.url } };
    await expect(backend.open(server.url, 'read')).rejects.toMatchObject(error);
    await expect(readAt(file, CHUNK, 1)).rejects.toMatchObject({
      code,
      details: { status, offset: CHUNK },
    });
  });
});

describe('redirects', () => {
  const redirect = (server: RangeServer, to: (path: string) => string | null): void => {
    server.meddle = (request, response) => {
      const location = to(request.url ?? '');
      if (location !== null) response.writeHead(302, { location }).end();
      return location !== null;
    };
  };

  test('never lead from https to http', () => {
    const place = { file: 'https://h/disk', offset: null };
    const from = new URL('https://h/disk');
    expect(redirected(from, '//other/disk', place).href).toBe('https://other/disk');
    expect(redirected(new URL('http://h/disk'), 'https://h/x', place).href).toBe('https://h/x');
    expect(() => redirected(from, 'http://h/disk', place)).toThrow('from https to http://h');
  });

  test('are followed, a few, and what is open stays where they led', async () => {
    await using server = await served();
    redirect(server, (path) => {
      const step = Number(path.slice(2));
      if (!path.startsWith('/r')) return null;
      return step === 5 ? '/disk' : `r${step + 1}`;
    });
    await using file = await backend.open(`${server.origin}/r1`, 'read');
    const asked = server.ranges.length;
    assertSameBytes(await readAt(file, 9, 9), pattern(18).subarray(9), 'bytes');
    expect(server.ranges.length).toBe(asked + 1);
    expect(file.label).toBe(`${server.origin}/r1`);
    await expect(backend.open(`${server.origin}/r0`, 'read')).rejects.toMatchObject({
      code: 'STORAGE_NOT_FOUND',
      message: expect.stringContaining('more than 5 redirects'),
    });
  });

  test.each([
    ['in circles', '/disk', 'more than 5'],
    ['to a file', 'file:///etc/passwd', 'no HTTP URL'],
    ['nowhere', 'http://[', 'no HTTP URL'],
  ])('%s are refused', async (_, to, said) => {
    await using server = await served();
    redirect(server, () => to);
    await expect(backend.open(server.url, 'read')).rejects.toMatchObject({
      code: 'STORAGE_NOT_FOUND',
      message: expect.stringContaining(said),
    });
    expect(server.ranges.length).toBeLessThanOrEqual(6);
  });
});

describe('paths', () => {
  test.each(['/disk.raw', 'ftp://h/disk', 'file:///disk', 'disk', 'http://user:secret@h/disk'])(
    '%s is none of ours',
    async (path) => {
      const error = await backend.open(path, 'read').catch((cause) => cause);
      expect(error).toMatchObject({ code: 'STORAGE_NOT_FOUND' });
      expect(error.message).not.toContain('secret');
    },
  );

  test('the identity is that of the resource, and its version is in the facts', async () => {
    await using server = await served();
    const facts = await backend.facts(server.url);
    expect((await backend.facts(`${server.url}#part`)).identity).toEqual(facts.identity);
    expect((await backend.facts(server.url)).modified).toBe(facts.modified);
    server.files.set('/disk?2', pattern(2 * MiB));
    expect((await backend.facts(`${server.url}?2`)).identity).not.toEqual(facts.identity);
    server.files.set('/disk', pattern(2 * MiB, 3));
    expect((await backend.facts(server.url)).modified).not.toBe(facts.modified);
    server.validator = 'last-modified';
    const modified = Number(BigInt((await backend.facts(server.url)).modified) / 1_000_000n);
    expect(Date.now() - modified).toBeLessThan(3 * 3_600_000);
  });
});
