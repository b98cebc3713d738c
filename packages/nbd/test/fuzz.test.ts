import { readdirSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import {
  forSeeds,
  mangle,
  perTier,
  Random,
  recut,
  talk,
  withinASecond,
} from '@downfold/compliance';
import { describe, expect, test } from 'vitest';
import {
  BASE_ALLOCATION,
  COMMAND,
  COMMAND_FLAG,
  connectNbd,
  encodeClientFlags,
  encodeContextQuery,
  encodeDataHeader,
  encodeError,
  encodeHole,
  encodeInfoQuery,
  encodeNone,
  encodeOption,
  encodeRequestHeader,
  encodeSimpleReply,
  encodeStatus,
  type NbdClient,
  NbdError,
  OPTION,
  type Request,
  type Style,
  serveNbd,
} from '../src/index.ts';
import { MemoryExport } from './memory-export.ts';
import { goodAnswer, scriptedServer } from './scripted-server.ts';
import { strict } from './strict-export.ts';
import { scratch } from './support.ts';

const rounds = perTier({ quick: 2000, ci: 20_000, long: 200_000 });
const styles: readonly Style[] = ['simple', 'structured', 'extended'];

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

interface Resources {
  readonly files: number;
  readonly bytes: number;
}

/** What must not grow: open files, and bytes that are in use. */
function resources(): Resources {
  collect();
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return { files: readdirSync('/proc/self/fd').length, bytes: heapUsed + arrayBuffers };
}

/** Nothing has grown since `before`; the last sockets get a second to close. */
async function expectFlat(before: Resources): Promise<void> {
  await expect.poll(() => resources().files).toBeLessThanOrEqual(before.files);
  expect(resources().bytes - before.bytes).toBeLessThan(4 << 20);
}

/** What a good client says, message by message. */
function conversation(random: Random): Buffer[] {
  const style = random.pick(styles);
  const extended = style === 'extended';
  const name = random.pick(['disk', 'locked']);
  const query = { name, queries: [random.pick([BASE_ALLOCATION, 'base:', 'qemu:'])] };
  const said = [encodeClientFlags(random.next(4) === 0 ? 1 : 3)];
  if (random.next(3) === 0) said.push(encodeOption(OPTION.list));
  if (style === 'structured') said.push(encodeOption(OPTION.structuredReply));
  if (extended) said.push(encodeOption(OPTION.extendedHeaders));
  if (random.next(2) === 0)
    said.push(encodeOption(OPTION.listMetaContext, encodeContextQuery(query)));
  said.push(encodeOption(OPTION.setMetaContext, encodeContextQuery(query)));
  const last = random.next(8);
  if (last === 0) return [...said, encodeOption(OPTION.abort)];
  if (last === 1) said.push(encodeOption(OPTION.exportName, Buffer.from(name)));
  else said.push(encodeOption(OPTION.go, encodeInfoQuery({ name, infos: [0, 1, 2, 3] })));
  for (let count = 1 + random.next(8); count > 0; count--) {
    const command = random.pick(Object.values(COMMAND).filter((c) => c !== COMMAND.disconnect));
    const length = command === COMMAND.flush ? 0 : random.next(3000);
    const offset = command === COMMAND.flush ? 0 : random.next(65_536 - length);
    const carries = command === COMMAND.write;
    const flags =
      (random.next(3) === 0 ? COMMAND_FLAG.fua : 0) |
      (carries && extended ? COMMAND_FLAG.payloadLength : 0);
    said.push(encodeRequestHeader({ command, flags, cookie: count, offset, length }, extended));
    if (carries) said.push(random.bytes(length));
  }
  return said;
}

describe('mangled bytes', () => {
  test(`${rounds} mangled clients: the server drops them, or answers; nobody else notices`, async () => {
    using files = scratch();
    const path = files.path('nbd');
    const violations: string[] = [];
    const errors: unknown[] = [];
    const disk = new MemoryExport(65_536);
    const blockSize = { minimum: 512, preferred: 4096, maximumPayload: 2048 };
    const supports = { trim: false, fastZero: false, cache: false, multiConn: false };
    const locked = new MemoryExport(65_536, { readOnly: true, blockSize, supports });
    const good = new MemoryExport(65_536);
    await using _server = await serveNbd({
      listen: { path },
      exports: [
        ['disk', strict(disk, violations)],
        ['locked', strict(locked, violations)],
        ['a name that no bit flip makes', good],
      ],
      onError: (error) => errors.push(error),
    });
    const name = 'a name that no bit flip makes';
    await using bystander = await connectNbd({ server: { path }, name });
    const one = async (seed: number) => {
      const random = new Random(seed);
      const pieces = recut(random, mangle(random, conversation(random)));
      await withinASecond(talk(path, pieces));
    };
    let turn = 0;
    const between = async () => {
      turn += 1;
      const [bytes, back] = [Buffer.alloc(512, turn), Buffer.alloc(512)];
      await withinASecond(bystander.write(turn % 60_000, bytes));
      await withinASecond(bystander.read(turn % 60_000, back));
      if (!back.equals(bytes)) throw new Error('the bystander reads something else');
      for (const error of errors) if (!(error instanceof NbdError)) throw error;
      errors.length = 0;
      for (const each of [disk, locked, good]) each.calls.length = 0;
    };
    // whatever is made once, is made now
    await forSeeds(Math.min(rounds, 400), one, between);
    const before = resources();
    await forSeeds(rounds, one, between);
    expect(violations).toEqual([]);
    expect(locked.bytes.every((byte) => byte === 0)).toBe(true);
    await expectFlat(before);
  });

  const servers = rounds / 4;
  test(`${servers} mangled servers: our client rejects with its own errors, in time`, async () => {
    using files = scratch();
    const one = async (seed: number) => {
      const random = new Random(seed);
      const path = files.path(`${seed}`);
      const style = random.pick(styles);
      const spoil = (replies: readonly Buffer[], odds: number) =>
        random.next(odds) === 0 ? mangle(random, replies) : [...replies];
      await using _server = await scriptedServer(path, {
        style,
        option: (option) => spoil(goodAnswer(option, style), 6),
        request: (request) => recut(random, spoil(reply(random, style, request), 2)),
      });
      await withinASecond(use(path, style));
    };
    const nothing = async () => {};
    await forSeeds(Math.min(servers, 200), one, nothing);
    const before = resources();
    await forSeeds(servers, one, nothing);
    await expectFlat(before);
  });
});

/** A good answer to a request. */
function reply(random: Random, style: Style, request: Request): Buffer[] {
  const { command, offset, tag } = request;
  const length = command === COMMAND.read ? request.length : 0;
  if (style === 'simple') return [encodeSimpleReply(tag, null), Buffer.alloc(length, 1)];
  const of = (done: boolean) => ({ style, tag, done });
  if (random.next(5) === 0) return [encodeError(of(true), 'EIO', 'so it goes')];
  if (command === COMMAND.blockStatus)
    return [7, 8].map((id) => encodeStatus(of(id === 8), id, [{ length: 512, status: 0 }]));
  if (command !== COMMAND.read) return [encodeNone(of(true))];
  const half = length >> 1;
  return [
    encodeDataHeader(of(false), offset, half),
    Buffer.alloc(half, 1),
    encodeHole(of(true), offset + half, length - half),
  ];
}

/** Does some of everything; every failure must be one of ours. */
async function use(path: string, style: Style): Promise<void> {
  const ours = (error: unknown) => {
    const known = error instanceof NbdError && !error.message.includes('could not be taken');
    if (!known) throw error;
  };
  let client: NbdClient;
  try {
    const contexts = [BASE_ALLOCATION, 'qemu:x'];
    client = await connectNbd({ server: { path }, contexts, style, handshakeTimeout: 40 });
  } catch (error) {
    return ours(error);
  }
  const work = [
    client.read(0, Buffer.alloc(Math.min(client.info.size, 2000))),
    client.write(512, Buffer.alloc(512)),
    client.blockStatus(0, 1024),
    client.flush(),
    client.read(1024, Buffer.alloc(1024)),
  ];
  const settled = Promise.all(work.map((each) => each.then(() => {}, ours)));
  await client.close({ signal: AbortSignal.timeout(40) });
  await settled;
}
