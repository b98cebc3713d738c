import { once } from 'node:events';
import { type Duplex, duplexPair } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import {
  type ClientOptions,
  command,
  connectQmp,
  event,
  int,
  QmpClient,
  str,
  struct,
} from '../src/index.ts';
import { scratch, serverOf, Wire } from './support.ts';

const events = { N: event({ about: '', data: struct({ n: int }) }) };
const commands = {
  echo: command({
    about: '',
    arguments: struct({ text: str }),
    returns: str,
    run: ({ text }) => text,
  }),
  count: command({
    about: '',
    arguments: struct({ to: int }),
    run: ({ to }) => {
      for (let n = 1; n <= to; n++) server.emit('N', { n });
    },
  }),
  large: command({ about: '', returns: int, run: () => 2 ** 53 - 1 }),
  never: command({ about: '', run: () => new Promise<void>(() => undefined) }),
};
const server = serverOf({ commands, events });

async function clientOf(options: ClientOptions = {}): Promise<QmpClient> {
  const [ours, theirs] = duplexPair();
  void server.serve(ours);
  return await QmpClient.over(theirs, options);
}

/** A client of a server that says what the test says. */
function scripted(options: ClientOptions = {}): {
  readonly client: Promise<QmpClient>;
  readonly wire: Wire;
  readonly stream: Duplex;
} {
  const [ours, theirs] = duplexPair();
  return { client: QmpClient.over(theirs, options), wire: new Wire(ours), stream: ours };
}

const GREETING =
  '{"QMP": {"version": {"qemu": {"major": 9, "minor": 0, "micro": 0}, "package": ""}, "capabilities": ["oob"]}}\r\n';

async function negotiated(
  options: ClientOptions = {},
): Promise<{ readonly client: QmpClient; readonly stream: Duplex }> {
  const { client, stream } = scripted(options);
  stream.write(GREETING);
  await once(stream, 'data');
  stream.write('{"return": {}, "id": 1}\r\n');
  return { client: await client, stream };
}

describe('a client', () => {
  test('matches answers to commands, many at once', async () => {
    await using client = await clientOf();
    const texts = ['a', 'é€😀', '\0\u007f"\\', 'x'.repeat(15_000)];
    expect(await Promise.all(texts.map((text) => client.execute('echo', { text })))).toEqual(texts);
    await expect(client.execute('echo', {})).rejects.toMatchObject({
      name: 'QmpError',
      code: 'GenericError',
      message: "Parameter 'text' is missing",
    });
    await expect(client.execute('nope')).rejects.toMatchObject({ code: 'CommandNotFound' });
    expect(await client.execute('large')).toBe(2 ** 53 - 1);
  });

  test('tells events to every iterator from where it began, until it stops', async () => {
    await using client = await clientOf();
    await using early = client.events();
    await client.execute('count', { to: 2 });
    const late = client.events();
    await client.execute('count', { to: 1 });
    const numbersOf = async (iterator: typeof early, count: number): Promise<unknown[]> => {
      const all: unknown[] = [];
      while (all.length < count) all.push((await iterator.next()).value?.data?.['n']);
      return all;
    };
    expect(await numbersOf(early, 3)).toEqual([1, 2, 1]);
    expect(await numbersOf(late, 1)).toEqual([1]);
    const waiting = late.next();
    await late.return?.();
    expect(await waiting).toEqual({ done: true, value: undefined });
    await client.execute('count', { to: 1 });
    expect(await late.next()).toEqual({ done: true, value: undefined });
    expect(await numbersOf(early, 1)).toEqual([1]);
  });

  test('ends its iterators when it is closed, and refuses commands', async () => {
    const client = await clientOf();
    const told = client.events();
    const waiting = told.next();
    const pending = client.execute('never');
    pending.catch(() => undefined);
    await client[Symbol.asyncDispose]();
    expect(await waiting).toEqual({ done: true, value: undefined });
    await expect(pending).rejects.toMatchObject({ code: 'QMP_CLOSED' });
    await expect(client.execute('echo')).rejects.toMatchObject({ code: 'QMP_CLOSED' });
    await expect(client.events().next()).rejects.toMatchObject({ code: 'QMP_CLOSED' });
    await client[Symbol.asyncDispose]();
  });

  test('holds no more events than it may: those it has, then the failure', async () => {
    const { client, stream } = await negotiated({ events: 2 });
    await using told = client.events();
    for (let n = 1; n <= 3; n++)
      stream.write(
        `{"event": "N", "data": {"n": ${n}}, "timestamp": {"seconds": 1, "microseconds": 2}}\n`,
      );
    await sleep(1);
    expect((await told.next()).value).toEqual({
      event: 'N',
      data: { n: 1 },
      timestamp: { seconds: 1, microseconds: 2 },
    });
    await told.next();
    await expect(told.next()).rejects.toMatchObject({ code: 'QMP_SLOW_READER' });
    await client[Symbol.asyncDispose]();
  });

  test('gives up on a command when told so, and on no other', async () => {
    const { client, stream } = await negotiated();
    const abort = new AbortController();
    const lost = client.execute('a', {}, { signal: abort.signal });
    const kept = client.execute('b');
    abort.abort(new Error('enough'));
    await expect(lost).rejects.toThrow('enough');
    await expect(client.execute('c', {}, { signal: abort.signal })).rejects.toThrow('enough');
    stream.write('{"return": 1, "id": 2}\n{"return": 2, "id": 3}\n');
    expect(await kept).toBe(2);
    await client[Symbol.asyncDispose]();
  });

  test('gives up on connecting when told so', async () => {
    const abort = new AbortController();
    const { client } = scripted({ signal: abort.signal });
    abort.abort(new Error('enough'));
    await expect(client).rejects.toThrow('enough');
    await expect(connectQmp('/nonexistent', { signal: abort.signal })).rejects.toThrow('enough');
  });

  test('keeps integers of 64 bits, and takes unknown classes of errors for general ones', async () => {
    const { client, stream } = await negotiated();
    const large = client.execute('a');
    stream.write('{"return": [18446744073709551615, 1.0, {"__proto__": 1}], "id": 2}\n');
    const value = (await large) as unknown[];
    expect(value.slice(0, 2)).toEqual([2n ** 64n - 1n, 1]);
    expect(Object.keys(value[2] as object)).toEqual(['__proto__']);
    const refused = client.execute('b');
    stream.write('{"id": 3, "error": {"class": "FutureClass", "desc": "no"}}\n');
    await expect(refused).rejects.toMatchObject({ code: 'GenericError', message: 'no' });
    await client[Symbol.asyncDispose]();
  });
});

describe('a server that fails', () => {
  test.each([
    ['closes', null, 'QMP_CLOSED'],
    ['is no JSON', 'hello\r\n', 'QMP_SYNTAX'],
    ['does not greet', '{"a": 1}\r\n', 'QMP_UNEXPECTED'],
    ['sends a list', '[]', 'QMP_UNEXPECTED'],
    ['refuses', '{"error": {"class": "GenericError", "desc": "full"}}', 'QMP_CLOSED'],
    ['never ends a string', `"${'a'.repeat(3_000_000)}`, 'QMP_STRING_TOO_LONG'],
  ])('before it greets: it %s', async (_, line, code) => {
    const { client, stream } = scripted();
    if (line === null) stream.end();
    else stream.write(line);
    await expect(client).rejects.toMatchObject({ code });
  });

  test('after it greeted: by an answer that nobody asked for, or an end', async () => {
    for (const [line, code] of [
      ['{"return": {}, "id": 99}\n', 'QMP_UNEXPECTED'],
      ['{"return": {}}\n', 'QMP_UNEXPECTED'],
      ['', 'QMP_CLOSED'],
    ] as const) {
      const { client, stream } = await negotiated();
      const told = client.events();
      const waiting = told.next();
      waiting.catch(() => undefined);
      const pending = client.execute('a');
      pending.catch(() => undefined);
      if (line === '') stream.end();
      else stream.write(line);
      await expect(pending).rejects.toMatchObject({ code });
      await expect(waiting).rejects.toMatchObject({ code });
      await client[Symbol.asyncDispose]();
    }
  });

  test('by not being there', async () => {
    using place = scratch();
    await expect(connectQmp(place.path('none'))).rejects.toMatchObject({
      code: 'QMP_CLOSED',
      cause: { code: 'ENOENT' },
    });
  });
});
