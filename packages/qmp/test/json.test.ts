import { setImmediate as turn } from 'node:timers/promises';
import { hostileJson, perTier } from '@downfold/compliance';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { plain } from '../src/json.ts';
import { JsonReader, type ReaderLimits } from '../src/reader.ts';
import { toJson } from '../src/writer.ts';
import { numbers } from './support.ts';

function read(bytes: Uint8Array | string, cuts: readonly number[] = [], limits: ReaderLimits = {}) {
  const all = Buffer.from(bytes);
  const reader = new JsonReader(limits);
  const at = [0, ...cuts.map((cut) => cut % (all.length + 1)).sort((a, b) => a - b), all.length];
  return at.slice(1).flatMap((end, i) => [...reader.feed(all.subarray(at[i], end))]);
}

function codes(bytes: string, limits: ReaderLimits = {}): readonly unknown[] {
  return read(bytes, [], limits).map(({ error, value }) => error?.code ?? plain(value ?? null));
}

/** Integers beyond 2^53-1 as JavaScript reads them. */
function asDoubles(value: unknown): unknown {
  return JSON.parse(toJson(value));
}

/** What both sides can say: no lone surrogates, no noncharacters. */
const text = fc
  .string({ unit: 'binary', maxLength: 20 })
  .map((each) => each.replaceAll(/[\p{Cs}\p{Noncharacter_Code_Point}]/gu, '-'));
const json = fc.letrec((tie) => ({
  value: fc.oneof(
    { maxDepth: 4 },
    fc.constantFrom(null, true, false),
    text,
    fc.integer(),
    fc.maxSafeInteger(),
    fc.double({ noNaN: true, noDefaultInfinity: true }),
    fc.array(tie('value'), { maxLength: 5 }),
    fc.dictionary(text, tie('value'), { maxKeys: 5 }),
  ),
})).value;
const gap = fc.constantFrom('\n', '\r\n', ' ', '\t\n ', '\n\n');

describe('any JSON', () => {
  test('comes back from any cuts in any company', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(json, gap, fc.boolean()), { minLength: 1, maxLength: 5 }),
        fc.array(fc.nat(), { maxLength: 8 }),
        (values, cuts) => {
          // ours, or JavaScript's: UTF-8 without a blank
          const bytes = values
            .map(([value, end, own]) => (own ? toJson(value) : JSON.stringify(value)) + end)
            .join('');
          const came = read(bytes, cuts).map(({ value, error }) => error ?? plain(value ?? null));
          expect(came.map(asDoubles)).toEqual(
            JSON.parse(JSON.stringify(values.map(([value]) => value))),
          );
        },
      ),
      { numRuns: perTier({ quick: 300, ci: 3000, long: 30_000 }) },
    );
  });

  test('is written in ASCII that others read as the same', () => {
    fc.assert(
      fc.property(json, (value) => {
        const written = toJson(value);
        expect(written).toMatch(/^[ -~]*$/);
        expect(JSON.parse(written)).toEqual(JSON.parse(JSON.stringify(value)));
      }),
    );
  });

  test('needs no separators but between scalars', () => {
    expect(codes('{}[]"a""b"{"a":1}')).toEqual([{}, [], 'a', 'b', { a: 1 }]);
    expect(codes('1 true null\n2 ')).toEqual([1, true, null, 2]);
  });
});

describe('what is written', () => {
  test('for what is no character is U+FFFD', () => {
    expect(toJson('\ud800a\uffff\u{1fffe}😀')).toBe('"\\uFFFDa\\uFFFD\\uFFFD\\uD83D\\uDE00"');
  });

  test('leaves out what is undefined, and refuses what JSON cannot say', () => {
    expect(toJson({ a: undefined, b: 1, c: 2n ** 64n })).toBe(
      '{"b": 1, "c": 18446744073709551616}',
    );
    for (const value of [Number.NaN, () => 1, [undefined], Symbol('s')])
      expect(() => toJson(value)).toThrow(TypeError);
  });
});

describe('limits', () => {
  const long = `{"a": [${'1, '.repeat(40)}1]}`;

  test('of a text: blanks do not count, and the next line is read', () => {
    expect(codes(`${long}\n{}`, { text: 50 })).toEqual(['QMP_TOO_LONG', {}]);
    expect(codes(`{${' '.repeat(500)}}`, { text: 50 })).toEqual([{}]);
    const exact = `["${'a'.repeat(46)}"]`;
    expect(codes(exact, { text: 50 })).toHaveLength(1);
    expect(codes(exact, { text: 50 })).not.toContain('QMP_TOO_LONG');
    expect(codes(`["${'a'.repeat(47)}"]`, { text: 50 })).toEqual(['QMP_TOO_LONG']);
  });

  test('of a string, a number, a keyword: found before they end', () => {
    const limits = { text: 100, string: 10 };
    expect(codes(`"${'a'.repeat(10)}"`, limits)).toEqual(['a'.repeat(10)]);
    expect(codes(`"${'a'.repeat(11)}"`, limits)).toEqual(['QMP_STRING_TOO_LONG']);
    expect(codes(`"${'a'.repeat(101)}`, limits)).toEqual(['QMP_TOO_LONG']);
    for (const endless of ['1', 'a'])
      expect(codes(endless.repeat(101), limits)).toEqual(['QMP_TOO_LONG']);
  });

  test('of depth', () => {
    expect(codes('[[{"a":1}]]', { depth: 3 })).toEqual([[[{ a: 1 }]]]);
    expect(codes('[[{"a":[]}]]\n7\n', { depth: 3 })).toEqual(['QMP_TOO_DEEP', 7]);
    expect(codes(`${'['.repeat(32)}${']'.repeat(32)}`)).toHaveLength(1);
    expect(codes(`${'['.repeat(33)}${']'.repeat(33)}`)).toEqual(['QMP_TOO_DEEP']);
    for (const depth of [0, 1025, Number.NaN])
      expect(() => new JsonReader({ depth })).toThrow(RangeError);
  });

  test('a line of 64 MiB is one error, and is not kept', () => {
    const reader = new JsonReader();
    const chunk = Buffer.alloc(65_536, 'a');
    let errors = [...reader.feed(Buffer.from('"'))].length;
    const before = process.memoryUsage();
    for (let chunks = 0; chunks < 1024; chunks++) errors += [...reader.feed(chunk)].length;
    const after = process.memoryUsage();
    expect(errors).toBe(1);
    expect(after.heapUsed + after.external - before.heapUsed - before.external).toBeLessThan(
      32 << 20,
    );
    expect([...reader.feed(Buffer.from('\n1\n'))]).toEqual([{ value: 1 }]);
  });
});

const count = perTier({ quick: 2000, ci: 20_000, long: 200_000 });
test(`${count} malformed inputs: no crash, no hang, nothing kept, the same however they are cut`, async () => {
  const limits = { text: 300, string: 100, depth: 8 };
  const one = new JsonReader(limits);
  const before = process.memoryUsage().heapUsed;
  let slowest = 0;
  let largest = 0;
  for (let seed = 1; seed <= count; seed++) {
    const next = numbers(seed);
    const bytes = hostileJson(next);
    const from = performance.now();
    // forgets what the input before left open
    const start = Buffer.from('\xff\n', 'latin1');
    for (const { value } of one.feed(Buffer.concat([start, bytes])))
      largest = Math.max(largest, toJson(value ?? null).length);
    slowest = Math.max(slowest, performance.now() - from);
    if (seed % 10 === 0) {
      const cuts = Array.from({ length: next(6) }, () => next(bytes.length + 1));
      // a limit met by a token that has not ended is met sooner or later, after as many bytes
      const wide = { text: 1 << 20, string: 1 << 20, depth: 8 };
      expect(read(bytes, cuts, wide), `seed ${seed}`).toEqual(read(bytes, [], wide));
    }
    if (seed % 1000 === 0) await turn();
  }
  expect(slowest).toBeLessThan(1000);
  expect(process.memoryUsage().heapUsed - before).toBeLessThan(128 << 20);
  // an escape may be six times as long as the byte it stands for
  expect(largest).toBeLessThanOrEqual(300 * 6);
  expect([...one.feed(Buffer.from('\xff\n{"a": 1}', 'latin1'))].at(-1)).toEqual({
    value: { a: 1 },
  });
});
