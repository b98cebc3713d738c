import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Coverage } from '../src/client/coverage.ts';
import { encodeMessage } from '../src/codec/strings.ts';
import {
  ByteQueue,
  type ChunkOf,
  COMMAND,
  COMMAND_FLAG,
  decodeContextQuery,
  decodeExportFacts,
  decodeGreeting,
  decodeInfo,
  decodeInfoQuery,
  decodeMetaContext,
  decodeServerEntry,
  ERRNO,
  type Errno,
  encodeContextQuery,
  encodeDataHeader,
  encodeError,
  encodeExportNameReply,
  encodeGreeting,
  encodeHole,
  encodeInfoBlockSize,
  encodeInfoExport,
  encodeInfoQuery,
  encodeInfoText,
  encodeMetaContext,
  encodeNone,
  encodeOption,
  encodeOptionReply,
  encodeRequestHeader,
  encodeServerEntry,
  encodeSimpleReply,
  encodeStatus,
  INFO,
  OptionDecoder,
  OptionReplyDecoder,
  ReplyDecoder,
  type ReplySink,
  RequestDecoder,
} from '../src/index.ts';

const u16 = fc.integer({ min: 0, max: 0xffff });
const u32 = fc.integer({ min: 0, max: 0xffff_ffff });
const u53 = fc.maxSafeNat();
const text = fc.string({ maxLength: 300, unit: 'grapheme' }).filter((s) => !s.includes('\0'));
const bytes = fc.uint8Array({ maxLength: 500 }).map((array) => Buffer.from(array));
/** Sizes that a stream is cut into. */
const cuts = fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 20 });

/** Pushes `stream` in pieces, and calls `step` after each. */
function inPieces(
  stream: Buffer,
  sizes: readonly number[],
  step: (queue: ByteQueue) => void,
): void {
  const queue = new ByteQueue();
  for (let at = 0, turn = 0; at < stream.length; turn++) {
    const size = sizes[turn % sizes.length] ?? 1;
    queue.push(Buffer.from(stream.subarray(at, at + size)));
    at += size;
    step(queue);
  }
  expect(queue.length).toBe(0);
}

/** All that a decoder takes out of a stream that comes in pieces. */
function drain<T>(
  stream: Buffer,
  sizes: readonly number[],
  decoder: { next(queue: ByteQueue): T | null },
): T[] {
  const all: T[] = [];
  inPieces(stream, sizes, (queue) => {
    for (let next = decoder.next(queue); next !== null; next = decoder.next(queue)) all.push(next);
  });
  return all;
}

describe('what is encoded is decoded again, however it is cut', () => {
  test('requests, compact and extended', () => {
    const request = fc.record({
      command: fc.constantFrom(...Object.values(COMMAND)),
      flags: u16,
      cookie: u53,
      offset: u53,
      length: u32,
      payload: bytes,
    });
    fc.assert(
      fc.property(
        fc.array(request, { maxLength: 6 }),
        fc.boolean(),
        cuts,
        (all, extended, sizes) => {
          const carries = ({ command, flags }: { command: number; flags: number }) =>
            extended ? (flags & COMMAND_FLAG.payloadLength) !== 0 : command === COMMAND.write;
          const sent = all.map((each) => ({
            ...each,
            length: carries(each) ? each.payload.length : each.length,
          }));
          const stream = Buffer.concat(
            sent.flatMap((each) => [
              encodeRequestHeader(each, extended),
              ...(carries(each) ? [each.payload] : []),
            ]),
          );
          const got = drain(stream, sizes, new RequestDecoder(extended));
          expect(got.length).toBe(sent.length);
          for (const [index, each] of got.entries()) {
            const { cookie, payload, ...rest } = sent[index] as (typeof sent)[number];
            expect(each).toMatchObject(rest);
            expect(each.payload ?? Buffer.alloc(0)).toEqual(
              carries(rest) ? payload : Buffer.alloc(0),
            );
            expect(Number(each.tag.readBigUInt64BE(0))).toBe(cookie);
            expect(Number(each.tag.readBigUInt64BE(8))).toBe(rest.offset);
          }
        },
      ),
    );
  });

  test('options and their replies', () => {
    const option = fc.record({ option: u32, data: bytes });
    fc.assert(
      fc.property(fc.array(option, { maxLength: 5 }), cuts, (all, sizes) => {
        const stream = Buffer.concat(all.map(({ option, data }) => encodeOption(option, data)));
        expect(drain(stream, sizes, new OptionDecoder())).toEqual(all);
      }),
    );
    const reply = fc.record({ option: u32, reply: u32, data: bytes });
    fc.assert(
      fc.property(fc.array(reply, { maxLength: 5 }), cuts, (all, sizes) => {
        const stream = Buffer.concat(
          all.map(({ option, reply, data }) => encodeOptionReply(option, reply, data)),
        );
        expect(drain(stream, sizes, new OptionReplyDecoder())).toEqual(all);
      }),
    );
  });

  test('data of options and of their replies', () => {
    fc.assert(
      fc.property(text, fc.array(u16, { maxLength: 9 }), (name, infos) => {
        expect(decodeInfoQuery(encodeInfoQuery({ name, infos }))).toEqual({ name, infos });
      }),
    );
    fc.assert(
      fc.property(text, fc.array(text, { maxLength: 9 }), (name, queries) => {
        expect(decodeContextQuery(encodeContextQuery({ name, queries }))).toEqual({
          name,
          queries,
        });
      }),
    );
    fc.assert(
      fc.property(text, text, u32, u53, u16, (name, description, id, size, flags) => {
        expect(decodeServerEntry(encodeServerEntry(name, description))).toEqual({
          name,
          description,
        });
        expect(decodeMetaContext(encodeMetaContext(id, name))).toEqual({ id, name });
        expect(decodeInfo(encodeInfoText(INFO.name, name))).toEqual({ info: 'name', text: name });
        const facts = { size, flags };
        expect(decodeInfo(encodeInfoExport(facts))).toEqual({ info: 'export', ...facts });
        expect(decodeExportFacts(encodeExportNameReply(facts, flags % 2 === 0))).toEqual(facts);
        const blocks = { minimum: id, preferred: flags, maximumPayload: id };
        expect(decodeInfo(encodeInfoBlockSize(blocks))).toEqual({ info: 'blockSize', ...blocks });
        expect(decodeGreeting(encodeGreeting(flags))).toBe(flags);
      }),
    );
  });

  const event = fc.oneof(
    fc.record({
      kind: fc.constant('data' as const),
      offset: u53,
      bytes: bytes.filter((b) => b.length > 0),
    }),
    fc.record({ kind: fc.constant('hole' as const), offset: u53, length: u32 }),
    fc.record({
      kind: fc.constant('status' as const),
      context: u32,
      extents: fc.array(fc.record({ length: u32, status: u32 }), { minLength: 1, maxLength: 5 }),
    }),
    fc.record({
      kind: fc.constant('error' as const),
      error: fc.constantFrom(...(Object.keys(ERRNO) as Errno[])),
      message: text,
    }),
    fc.record({
      kind: fc.constant('simple' as const),
      error: fc.constantFrom(null, 'EIO' as const),
    }),
    fc.record({ kind: fc.constant('none' as const) }),
  );

  test('replies, structured and extended', () => {
    const reply = fc.record({ event, cookie: u53, offset: u53, done: fc.boolean() });
    fc.assert(
      fc.property(fc.array(reply, { maxLength: 6 }), fc.boolean(), cuts, (all, extended, sizes) => {
        const style = extended ? 'extended' : 'structured';
        const sent = all.filter(({ event: { kind } }) => !(extended && kind === 'simple'));
        const stream: Buffer[] = [];
        const expected: unknown[] = [];
        for (const { event: e, cookie, offset, done } of sent) {
          const tag = Buffer.alloc(16);
          tag.writeBigUInt64BE(BigInt(cookie), 0);
          tag.writeBigUInt64BE(BigInt(offset), 8);
          const of: ChunkOf = { style, tag, done };
          if (e.kind !== 'simple') expected.push(['chunk', cookie, extended ? offset : null]);
          if (e.kind === 'data') {
            stream.push(encodeDataHeader(of, e.offset, e.bytes.length), e.bytes);
            expected.push(['data', cookie, e.offset, e.bytes]);
          } else if (e.kind === 'hole') {
            stream.push(encodeHole(of, e.offset, e.length));
            expected.push(['hole', cookie, e.offset, e.length]);
          } else if (e.kind === 'status') {
            stream.push(encodeStatus(of, e.context, e.extents));
            expected.push(['status', cookie, e.context, e.extents]);
          } else if (e.kind === 'error') {
            stream.push(encodeError(of, e.error, e.message));
            expected.push(['failure', cookie, ERRNO[e.error], e.message, null]);
          } else if (e.kind === 'simple') {
            stream.push(encodeSimpleReply(tag, e.error));
            expected.push(['simple', cookie, e.error === null ? 0 : ERRNO[e.error]]);
          } else stream.push(encodeNone(of));
          if (done || e.kind === 'simple' || e.kind === 'none') expected.push(['done', cookie]);
        }
        const seen: unknown[] = [];
        const sink: ReplySink = {
          chunk: (...args) => void seen.push(['chunk', ...args]),
          simple: (...args) => {
            seen.push(['simple', ...args]);
            return null;
          },
          data: (cookie, offset, length) => {
            const target = Buffer.alloc(length);
            seen.push(['data', cookie, offset, target]);
            return target;
          },
          hole: (...args) => void seen.push(['hole', ...args]),
          status: (...args) => void seen.push(['status', ...args]),
          failure: (...args) => void seen.push(['failure', ...args]),
          done: (...args) => void seen.push(['done', ...args]),
        };
        const decoder = new ReplyDecoder(style, sink);
        inPieces(Buffer.concat(stream), sizes, (queue) => decoder.run(queue));
        expect(seen).toEqual(expected);
      }),
    );
  });
});

describe('bytes written by hand', () => {
  const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');

  test('a compact and an extended request', () => {
    const header = {
      command: COMMAND.trim,
      flags: 1,
      cookie: 0x1122334455,
      offset: 2 ** 40,
      length: 512,
    };
    expect(hex(encodeRequestHeader(header, false))).toBe(
      '2560951300010004' + '0000001122334455' + '0000010000000000' + '00000200',
    );
    expect(hex(encodeRequestHeader(header, true))).toBe(
      '21e41c7100010004' + '0000001122334455' + '0000010000000000' + '0000000000000200',
    );
  });

  test('replies', () => {
    const tag = Buffer.from('aabbccddeeff00110000000000001000', 'hex');
    expect(hex(encodeSimpleReply(tag, 'ENOSPC'))).toBe(
      '67446698' + '0000001c' + 'aabbccddeeff0011',
    );
    expect(hex(encodeHole({ style: 'structured', tag, done: true }, 4096, 512))).toBe(
      '668e33ef' + '00010002' + 'aabbccddeeff0011' + '0000000c' + '0000000000001000' + '00000200',
    );
    expect(hex(encodeDataHeader({ style: 'extended', tag, done: false }, 8192, 16))).toBe(
      '6e8a278c' +
        '00000001' +
        'aabbccddeeff0011' +
        '0000000000001000' +
        '0000000000000018' +
        '0000000000002000',
    );
    expect(hex(encodeError({ style: 'structured', tag, done: true }, 'EIO', 'no'))).toBe(
      '668e33ef' + '00018001' + 'aabbccddeeff0011' + '00000008' + '00000005' + '0002' + '6e6f',
    );
  });

  test('the handshake', () => {
    expect(hex(encodeGreeting(3))).toBe('4e42444d41474943' + '49484156454f5054' + '0003');
    expect(hex(encodeOption(7, Buffer.from('x')))).toBe(
      '49484156454f5054' + '00000007' + '00000001' + '78',
    );
    expect(hex(encodeOptionReply(7, 1))).toBe(
      '0003e889045565a9' + '00000007' + '00000001' + '00000000',
    );
  });
});

test('messages are cut to what a string may hold, and stay text', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary', maxLength: 6000, minLength: 0 }), (message) => {
      const cut = encodeMessage(message);
      expect(cut.length).toBeLessThanOrEqual(4096);
      expect(new TextDecoder('utf-8', { fatal: true }).decode(cut)).not.toContain('\0');
    }),
    { numRuns: 20 },
  );
  expect(encodeMessage('é'.repeat(5000)).length).toBeGreaterThan(2000);
});

test('a byte queue is a queue of bytes', () => {
  const operation = fc.oneof(
    fc.record({ push: bytes }),
    fc.record({ take: fc.integer({ min: 0, max: 60 }) }),
    fc.record({ copy: fc.integer({ min: 0, max: 60 }) }),
    fc.record({ discard: fc.integer({ min: 0, max: 60 }) }),
    fc.record({ peek: fc.constant(true) }),
  );
  fc.assert(
    fc.property(fc.array(operation, { maxLength: 40 }), (operations) => {
      const queue = new ByteQueue();
      let model = Buffer.alloc(0);
      for (const each of operations) {
        if ('push' in each) {
          queue.push(each.push);
          model = Buffer.concat([model, each.push]);
        } else if ('take' in each) {
          const enough = model.length >= each.take;
          expect(queue.take(each.take)).toEqual(enough ? model.subarray(0, each.take) : null);
          if (enough) model = model.subarray(each.take);
        } else if ('copy' in each) {
          const target = Buffer.alloc(each.copy);
          const copied = queue.copyInto(target);
          expect(target.subarray(0, copied)).toEqual(model.subarray(0, each.copy));
          model = model.subarray(copied);
        } else if ('discard' in each) {
          const gone = queue.discard(each.discard);
          expect(gone).toBe(Math.min(each.discard, model.length));
          model = model.subarray(gone);
        } else expect(queue.peekU32()).toBe(model.length < 4 ? null : model.readUInt32BE(0));
        expect(queue.length).toBe(model.length);
      }
    }),
  );
});

test('bytes that come one by one take no more memory than bytes', () => {
  const queue = new ByteQueue();
  const before = process.memoryUsage().heapUsed;
  const all = Buffer.from(Array.from({ length: 300_000 }, (_, i) => i % 251));
  for (let i = 0; i < all.length; i++) queue.push(Buffer.from(all.subarray(i, i + 1)));
  // 300,000 buffers would take some 30 MB
  expect(process.memoryUsage().heapUsed - before).toBeLessThan(15 << 20);
  expect(queue.take(all.length)?.equals(all)).toBe(true);
});

test('coverage counts each byte once, whatever the order', () => {
  const piece = fc.tuple(fc.integer({ min: 0, max: 30 }), fc.integer({ min: -1, max: 12 }));
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 30 }), (pieces) => {
      const [start, length] = [5, 20];
      const coverage = new Coverage(start, length);
      const model = new Set<number>();
      for (const [offset, size] of pieces) {
        const all = Array.from({ length: Math.max(size, 0) }, (_, i) => offset + i);
        const fits =
          size > 0 && all.every((at) => at >= start && at < start + length && !model.has(at));
        expect(coverage.add(offset, size)).toBe(fits);
        if (fits) for (const at of all) model.add(at);
        expect(coverage.complete).toBe(model.size === length);
      }
    }),
  );
});
