import { once } from 'node:events';
import { duplexPair } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { perTier } from '@downfold/compliance';
import { DownfoldError } from '@downfold/units';
import { describe, expect, test } from 'vitest';
import { command, event, int, optional, QmpError, str, struct } from '../src/index.ts';
import { numbers, serverOf, sessionOf, Wire } from './support.ts';

const GREETING = {
  QMP: {
    version: { qemu: { major: 7, minor: 2, micro: 22 }, package: 'test' },
    capabilities: [],
  },
};

const TICK = {
  TICK: event({ about: 'A tick.', data: struct({ n: int }) }),
  BARE: event({ about: 'Nothing more.' }),
};

describe('a session', () => {
  test('greets, negotiates, answers, and echoes ids', async () => {
    await using server = serverOf({
      commands: {
        add: command({
          about: 'Adds.',
          arguments: struct({ a: int, b: optional(int) }),
          returns: int,
          run: ({ a, b = 1 }) => a + b,
        }),
      },
    });
    const { wire, over } = sessionOf(server);
    expect(await wire.message()).toEqual(GREETING);
    expect(await wire.ask('{"execute": "add", "id": 0}')).toEqual({
      id: 0,
      error: {
        class: 'CommandNotFound',
        desc: "Expecting capabilities negotiation with 'qmp_capabilities'",
      },
    });
    expect(
      await wire.ask('{"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}}'),
    ).toEqual({
      error: { class: 'GenericError', desc: 'Capability oob not available' },
    });
    expect(await wire.ask('{"execute": "qmp_capabilities", "id": "x"}')).toEqual({
      return: {},
      id: 'x',
    });
    expect(await wire.ask('{"execute": "add", "arguments": {"a": 2, "b": 3}, "id": [1]}')).toEqual({
      return: 5,
      id: [1],
    });
    expect(await wire.ask('{"execute": "query-version"}')).toEqual({
      return: GREETING.QMP.version,
    });
    expect(await wire.ask('{"execute": "query-commands"}')).toEqual({
      return: [
        'qmp_capabilities',
        'query-version',
        'query-commands',
        'query-qmp-schema',
        'add',
      ].map((name) => ({ name })),
    });
    wire.stream.end();
    expect(await over).toBeNull();
    expect(server.sessions).toBe(0);
  });

  test('answers what came before the other side ended its half', async () => {
    await using server = serverOf({
      commands: { slow: command({ about: '', run: () => sleep(20) }) },
    });
    const { wire, over } = sessionOf(server);
    wire.stream.end(
      '{"execute": "qmp_capabilities"}{"execute": "slow", "id": 1}{"execute": "slow", "id": 2}',
    );
    expect(await wire.message()).toEqual(GREETING);
    expect(await wire.message()).toEqual({ return: {} });
    expect(await wire.message()).toEqual({ return: {}, id: 1 });
    expect(await wire.message()).toEqual({ return: {}, id: 2 });
    expect(await wire.line()).toBeNull();
    expect(await over).toBeNull();
  });

  test('tells events after negotiation, in the order of what else it sends', async () => {
    await using server = serverOf({
      now: () => 1_234_567.891,
      events: TICK,
      commands: {
        tick: command({
          about: '',
          run: async () => {
            server.emit('TICK', { n: 1 });
            await sleep(1);
            server.emit('TICK', { n: 2 });
            void Promise.resolve().then(() => server.emit('BARE'));
          },
        }),
      },
    });
    const early = sessionOf(server).wire;
    const { wire } = sessionOf(server);
    await wire.negotiate();
    wire.send('{"execute": "tick", "id": 1}\n');
    const timestamp = { seconds: 1234, microseconds: 567_891 };
    expect(await wire.message()).toEqual({ timestamp, event: 'TICK', data: { n: 1 } });
    expect(await wire.message()).toEqual({ timestamp, event: 'TICK', data: { n: 2 } });
    expect([await wire.message(), await wire.message()]).toEqual([
      { timestamp, event: 'BARE' },
      { return: {}, id: 1 },
    ]);
    server.emit('TICK', { n: 3 });
    expect(await wire.message()).toMatchObject({ data: { n: 3 } });
    expect(await early.message()).toEqual(GREETING);
    expect(await early.ask('{"execute": "qmp_capabilities"}')).toEqual({ return: {} });
  });

  test('has the clock of the machine, to the microsecond', async () => {
    await using server = serverOf({ events: TICK });
    const { wire } = sessionOf(server);
    await wire.negotiate();
    const before = Date.now();
    server.emit('BARE');
    const { timestamp } = (await wire.message()) as {
      timestamp: { seconds: number; microseconds: number };
    };
    const told = timestamp.seconds * 1000 + timestamp.microseconds / 1000;
    expect(Math.abs(told - before)).toBeLessThan(1000);
    expect(Number.isInteger(timestamp.microseconds)).toBe(true);
  });

  test('tells what went wrong, and goes on', async () => {
    const faults: unknown[] = [];
    const failing = (error: unknown) => command({ about: '', run: () => Promise.reject(error) });
    await using server = serverOf({
      onFault: (fault, name) => faults.push([name, String(fault)]),
      commands: {
        qmp: failing(new QmpError('DeviceNotActive', 'not active')),
        own: failing(new DownfoldError('SOME_CODE', 'disk.qcow2: at 7: is full')),
        fault: failing(new TypeError('x is undefined')),
        text: failing('just text'),
        unsayable: command({ about: '', returns: int, run: () => Number.NaN }),
      },
    });
    const { wire } = sessionOf(server);
    await wire.negotiate();
    const errors: unknown[] = [];
    for (const name of ['qmp', 'own', 'fault', 'text', 'unsayable'])
      errors.push(((await wire.ask(`{"execute": "${name}"}`)) as { error: unknown }).error);
    expect(errors).toEqual([
      { class: 'DeviceNotActive', desc: 'not active' },
      { class: 'GenericError', desc: 'disk.qcow2: at 7: is full' },
      { class: 'GenericError', desc: 'Internal error in fault: x is undefined' },
      { class: 'GenericError', desc: 'Internal error in text: just text' },
      { class: 'GenericError', desc: 'Internal error in unsayable: JSON cannot say NaN' },
    ]);
    expect(faults).toEqual([
      ['fault', 'TypeError: x is undefined'],
      ['text', 'just text'],
      ['unsayable', 'TypeError: JSON cannot say NaN'],
    ]);
  });

  test('refuses what is beyond the limits, and goes on', async () => {
    await using server = serverOf({ limits: { text: 200, string: 50, depth: 4 } });
    const { wire } = sessionOf(server);
    await wire.negotiate();
    const version = { return: GREETING.QMP.version };
    for (const [input, desc] of [
      [`{"execute": [${'1,'.repeat(200)}`, 'JSON token size limit exceeded'],
      [`{"execute": "${'a'.repeat(60)}"}`, 'JSON string size limit exceeded'],
      ['{"execute": [[[[', 'JSON nesting depth limit exceeded'],
    ]) {
      expect(await wire.ask(input ?? '')).toEqual({ error: { class: 'GenericError', desc } });
      expect(await wire.ask('{"execute": "query-version"}')).toEqual(version);
    }
  });
});

describe('a server', () => {
  test('runs the commands of all sessions one at a time, in their order', async () => {
    const log: string[] = [];
    await using server = serverOf({
      commands: {
        work: command({
          about: '',
          arguments: struct({ name: str }),
          run: async ({ name }) => {
            log.push(`${name} begins`);
            await sleep(5);
            log.push(`${name} ends`);
            if (name === 'a1') throw new QmpError('GenericError', 'a1 fails');
          },
        }),
      },
    });
    const [a, b] = [sessionOf(server).wire, sessionOf(server).wire];
    await a.negotiate();
    await b.negotiate();
    for (const [wire, name] of [
      [a, 'a1'],
      [b, 'b1'],
      [a, 'a2'],
    ] as const)
      wire.send(`{"execute": "work", "arguments": {"name": "${name}"}}\n`);
    await Promise.all([a.line(), b.line()]);
    await a.line();
    expect(log).toEqual(['a1', 'b1', 'a2'].flatMap((name) => [`${name} begins`, `${name} ends`]));
  });

  test('reads no further while a command runs', async () => {
    let begun = 0;
    const gate = Promise.withResolvers<void>();
    await using server = serverOf({
      commands: {
        wait: command({
          about: '',
          run: () => {
            begun += 1;
            return gate.promise;
          },
        }),
      },
    });
    const { wire } = sessionOf(server);
    await wire.negotiate();
    let taken = 0;
    while (wire.stream.write('{"execute": "wait"}\n'.repeat(100)) && taken < 1000) {
      taken += 1;
      await sleep(0);
    }
    expect(taken).toBeLessThan(1000);
    expect(begun).toBe(1);
    gate.resolve();
  });

  test('answers no further while its answers are not read', async () => {
    await using server = serverOf();
    const [ours, theirs] = duplexPair();
    const over = server.serve(ours);
    theirs.write('{"execute": "qmp_capabilities"}');
    theirs.write('{"execute": "query-qmp-schema"}'.repeat(1000));
    await sleep(50);
    const one = 20_000;
    expect(ours.writableLength).toBeGreaterThan(one / 10);
    expect(ours.writableLength).toBeLessThan(10 * one);
    const wire = new Wire(theirs);
    for (let lines = 0; lines < 1002; lines++) expect(await wire.line()).not.toBeNull();
    theirs.end();
    expect(await over).toBeNull();
  });

  test('lets no more sessions in than it may, and says so', async () => {
    await using server = serverOf({ limits: { sessions: 2 } });
    const first = sessionOf(server);
    sessionOf(server);
    const { wire, over } = sessionOf(server);
    expect(await wire.message()).toMatchObject({ error: { class: 'GenericError' } });
    expect(await wire.line()).toBeNull();
    expect(await over).toMatchObject({ code: 'QMP_TOO_MANY_SESSIONS' });
    first.wire.stream.end();
    await first.over;
    expect(await sessionOf(server).wire.message()).toEqual(GREETING);
  });

  test('ends the session of a client that reads nothing, and no other', async () => {
    await using server = serverOf({ events: TICK, limits: { unread: 10_000 } });
    const [ours, theirs] = duplexPair();
    const over = server.serve(ours);
    theirs.write('{"execute": "qmp_capabilities"}\n');
    const { wire } = sessionOf(server);
    await wire.negotiate();
    await sleep(5);
    for (let n = 0; server.sessions > 1 && n < 10_000; n++) {
      server.emit('TICK', { n });
      await wire.line();
    }
    expect(await over).toMatchObject({ code: 'QMP_SLOW_READER' });
    expect(await wire.ask('{"execute": "query-version"}')).toMatchObject({ return: {} });
  });

  test('outlives a connection that breaks, also in the middle of a command', async () => {
    const gate = Promise.withResolvers<void>();
    await using server = serverOf({
      commands: { wait: command({ about: '', run: () => gate.promise }) },
    });
    const [ours, theirs] = duplexPair();
    const over = server.serve(ours);
    theirs.write('{"execute": "qmp_capabilities"}{"execute": "wait"}');
    await sleep(5);
    ours.destroy(new Error('reset'));
    gate.resolve();
    expect(await over).toMatchObject({ message: 'reset' });
    expect(await sessionOf(server).wire.message()).toEqual(GREETING);
  });

  test('sends the answers that are due before it closes, and takes nobody after', async () => {
    const server = serverOf({
      commands: {
        quit: command({
          about: '',
          run: () => {
            void server[Symbol.asyncDispose]();
          },
        }),
      },
    });
    const { wire, over } = sessionOf(server);
    await wire.negotiate();
    expect(await wire.ask('{"execute": "quit", "id": 1}{"execute": "quit", "id": 2}')).toEqual({
      return: {},
      id: 1,
    });
    expect(await wire.line()).toBeNull();
    expect(await over).toBeNull();
    const late = sessionOf(server);
    expect(await late.over).toMatchObject({ code: 'QMP_CLOSED' });
    expect(await late.wire.message()).toMatchObject({ error: {} });
  });

  test('aborts the command that runs when it closes, and those that wait', async () => {
    const seen: unknown[] = [];
    let late = 0;
    const server = serverOf({
      commands: {
        listen: command({
          about: '',
          run: async (_, { signal }) => {
            await once(signal, 'abort');
            seen.push(signal.reason);
          },
        }),
        late: command({
          about: '',
          run: () => {
            late += 1;
          },
        }),
      },
    });
    const [a, b] = [sessionOf(server), sessionOf(server)];
    await a.wire.negotiate();
    await b.wire.negotiate();
    a.wire.send('{"execute": "listen", "id": 1}\n');
    await sleep(5);
    b.wire.send('{"execute": "late", "id": 2}\n');
    await sleep(5);
    await server[Symbol.asyncDispose]();
    expect(seen).toMatchObject([{ code: 'QMP_CLOSED' }]);
    expect(await a.wire.message()).toEqual({ return: {}, id: 1 });
    expect(await b.wire.message()).toMatchObject({
      id: 2,
      error: { desc: 'the QMP server was closed' },
    });
    expect(late).toBe(0);
    await Promise.all([a.over, b.over]);
    expect(server.sessions).toBe(0);
  });

  test('does not wait for a command that does not end, or a client that does not read', async () => {
    const server = serverOf({
      commands: {
        deaf: command({ about: '', run: () => new Promise<void>(() => undefined) }),
        long: command({ about: '', returns: str, run: () => 'x'.repeat(1 << 20) }),
      },
    });
    const [ours, theirs] = duplexPair();
    const over = server.serve(ours);
    theirs.write('{"execute": "qmp_capabilities"}{"execute": "long"}');
    const { wire } = sessionOf(server);
    await wire.negotiate();
    await sleep(5);
    wire.send('{"execute": "deaf"}\n');
    await sleep(5);
    const from = performance.now();
    await server[Symbol.asyncDispose]();
    const took = performance.now() - from;
    expect(took).toBeGreaterThan(900);
    expect(took).toBeLessThan(3000);
    expect(await over).toBeNull();
    expect(await wire.line()).toBeNull();
  });

  test('refuses a command that takes the name of one of its own', () => {
    expect(() =>
      serverOf({ commands: { 'query-version': command({ about: '', run: () => {} }) } }),
    ).toThrow(TypeError);
  });
});

const count = perTier({ quick: 300, ci: 3000, long: 30_000 });
test(`${count} chunks of rubbish: the session answers the next command`, async () => {
  await using server = serverOf({ limits: { text: 500, depth: 8 } });
  const { wire } = sessionOf(server);
  await wire.negotiate();
  for (let seed = 1; seed <= count; seed++) {
    const next = numbers(seed);
    const rubbish = Buffer.from(
      Array.from({ length: next(200) }, () =>
        next(3) === 0 ? next(256) : '{}[]:,"\\1e \n'.charCodeAt(next(13)),
      ),
    );
    wire.send(rubbish, Buffer.from([0xff, 0x0a]), `{"execute": "query-version", "id": ${seed}}\n`);
    for (;;) {
      const line = await wire.line();
      if (line === null) throw new Error(`seed ${seed}: the session ended`);
      if (line.endsWith(`"id": ${seed}}`)) break;
    }
  }
});

test('a session whose stream is destroyed is over', async () => {
  const [ours] = duplexPair();
  await using server = serverOf();
  const over = server.serve(ours);
  ours.destroy();
  expect(await over).toMatchObject({ code: 'ERR_STREAM_PREMATURE_CLOSE' });
  expect(server.sessions).toBe(0);
});
