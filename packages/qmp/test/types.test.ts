import { describe, expect, expectTypeOf, test } from 'vitest';
import { checked } from '../src/check.ts';
import {
  about,
  alternate,
  anything,
  bool,
  bounded,
  command,
  deprecated,
  document,
  event,
  type Infer,
  int,
  int32,
  introspect,
  lazy,
  list,
  nothing,
  number,
  oneOf,
  optional,
  str,
  struct,
  type Type,
  uint8,
  uint16,
  uint32,
  uint64,
  union,
  unstable,
} from '../src/index.ts';
import type { Json } from '../src/json.ts';
import { JsonReader } from '../src/reader.ts';

function json(text: string): Json {
  const [reading] = new JsonReader().feed(Buffer.from(`${text}\n`));
  if (reading?.value === undefined) throw reading?.error ?? new Error(`no JSON: ${text}`);
  return reading.value;
}

function check<T>(type: Type<T>, text: string): T {
  return checked(type, json(text));
}

const shape = union({
  name: 'Shape',
  tag: 'kind',
  base: { label: optional(str) },
  variants: { dot: struct({}), circle: struct({ radius: number }) },
});

test('TypeScript types follow from declarations', () => {
  const mixed = struct({
    a: int,
    b: optional(deprecated(str)),
    c: about('a list', list(oneOf(['x', 'y']))),
    d: unstable(optional(alternate('StrOrNull', [str, nothing]))),
  });
  expectTypeOf<Infer<typeof mixed>>().toEqualTypeOf<{
    readonly a: number;
    readonly b?: string;
    readonly c: readonly ('x' | 'y')[];
    readonly d?: string | null;
  }>();
  expectTypeOf<Infer<typeof shape>>().toEqualTypeOf<
    | { readonly kind: 'dot'; readonly label?: string }
    | { readonly kind: 'circle'; readonly label?: string; readonly radius: number }
  >();
  const declared = command({
    about: '',
    arguments: shape,
    returns: mixed,
    run: async () => ({ a: 1, c: [] }),
  });
  expectTypeOf(declared.run).parameter(0).toEqualTypeOf<Infer<typeof shape>>();
  // @ts-expect-error what is returned is not what was declared
  command({ about: '', returns: str, run: () => 1 });
});

describe('checked values', () => {
  test('are plain, and have what the type has', () => {
    expect(
      check(
        struct({ a: int, b: optional(bool), c: list(number) }),
        '{"c": [1, 2.5, 1.0], "a": -0}',
      ),
    ).toEqual({ a: 0, c: [1, 2.5, 1] });
    expect(check(shape, '{"radius": 1e2, "kind": "circle", "label": "o"}')).toEqual({
      kind: 'circle',
      label: 'o',
      radius: 100,
    });
    expect(check(anything, '{"a": [1.0, 9007199254740993, null]}')).toEqual({
      a: [1, 9007199254740993n, null],
    });
    expect(Object.getPrototypeOf(check(struct({ a: anything }), '{"a": {}}').a)).toBe(
      Object.prototype,
    );
  });

  test.each([
    [uint8, '255', '256', 'expects uint8_t'],
    [uint16, '65535', '65536', 'expects uint16_t'],
    [uint32, '4294967295', '4294967296', 'expects uint32_t'],
    [uint32, '0', '-1', 'expects uint32_t'],
    [int32, '-2147483648', '-2147483649', 'expects int32_t'],
    [
      uint64,
      '9007199254740991',
      '9007199254740992',
      'expects a value between 0 and 9007199254740991',
    ],
    [uint64, '0', '-1', 'expects a value between 0 and 9007199254740991'],
    [
      int,
      '-9007199254740991',
      '-9007199254740992',
      'expects a value between -9007199254740991 and 9007199254740991',
    ],
    [number, '1e308', '1e309', 'expects a finite number'],
    [bounded(1, 6), '6', '7', 'expects a value between 1 and 6'],
    [bounded(1, 6), '1', '0', 'expects a value between 1 and 6'],
  ] as const)('of numbers are in their range: %#', (type, good, bad, words) => {
    const of = struct({ n: type });
    expect(check(of, `{"n": ${good}}`)).toEqual({ n: Number(good) });
    expect(() => check(of, `{"n": ${bad}}`)).toThrow(`Parameter 'n' ${words}`);
  });

  test('of alternates go to the branch of their JSON type', () => {
    const any = alternate('Any', [oneOf(['a']), list(int), bool, int, nothing, struct({ x: int })]);
    for (const text of ['"a"', '[1]', 'true', '7', 'null', '{"x":1}'])
      expect(check(struct({ v: any }), `{"v": ${text}}`)).toEqual({ v: JSON.parse(text) });
    expect(() => check(struct({ v: any }), '{"v": "b"}')).toThrow(
      "Parameter 'v' does not accept value 'b'",
    );
    expect(() => check(struct({ v: any }), '{"v": 1.5}')).toThrow(
      "Invalid parameter type for 'v', expected: integer",
    );
    expect(() => check(struct({ v: alternate('One', [str]) }), '{"v": 1}')).toThrow(
      "Invalid parameter type for 'v', expected: One",
    );
  });

  test('of what is inherited by objects are missing or unexpected', () => {
    expect(() => check(struct({ toString: str }), '{}')).toThrow("Parameter 'toString' is missing");
    expect(() => check(struct({}), '{"constructor": 1}')).toThrow(
      "Parameter 'constructor' is unexpected",
    );
  });

  test('ranges must be ranges', () => {
    for (const [min, max] of [
      [2, 1],
      [0, Number.NaN],
      [0, 2 ** 53],
    ] as const)
      expect(() => bounded(min, max)).toThrow(RangeError);
  });
});

const tree: Type<object> = struct(
  { value: int, children: optional(list(lazy<object>(() => tree))) },
  'Tree',
);
const told = {
  commands: {
    'tree-add': command({
      about: 'Adds a tree.',
      arguments: struct({ tree: about('what | to add', tree), shape: optional(deprecated(shape)) }),
      returns: list(str),
      features: ['unstable'],
      run: () => [],
    }),
    quit: command({ about: 'Ends.', run: () => {} }),
  },
  events: {
    GROWN: event({
      about: 'A tree grew.',
      data: struct({ by: uint8, how: oneOf(['fast', 'slow'], 'How') }),
    }),
    GONE: event({ about: 'No more.' }),
  },
};

describe('an interface', () => {
  test('is told as QEMU tells its own, also of types that contain themselves', () => {
    expect(introspect(told)).toEqual([
      {
        name: 'tree-add',
        'meta-type': 'command',
        'arg-type': '1',
        'ret-type': '[str]',
        features: ['unstable'],
      },
      { name: 'quit', 'meta-type': 'command', 'arg-type': '0', 'ret-type': '0' },
      { name: 'GROWN', 'meta-type': 'event', 'arg-type': '2' },
      { name: 'GONE', 'meta-type': 'event', 'arg-type': '0' },
      { name: '0', 'meta-type': 'object', members: [] },
      {
        name: '1',
        'meta-type': 'object',
        members: [
          { name: 'tree', type: '3' },
          { name: 'shape', type: '4', default: null, features: ['deprecated'] },
        ],
      },
      { name: 'str', 'meta-type': 'builtin', 'json-type': 'string' },
      { name: '[str]', 'meta-type': 'array', 'element-type': 'str' },
      {
        name: '2',
        'meta-type': 'object',
        members: [
          { name: 'by', type: 'int' },
          { name: 'how', type: '5' },
        ],
      },
      {
        name: '3',
        'meta-type': 'object',
        members: [
          { name: 'value', type: 'int' },
          { name: 'children', type: '[3]', default: null },
        ],
      },
      {
        name: '4',
        'meta-type': 'object',
        members: [
          { name: 'kind', type: '6' },
          { name: 'label', type: 'str', default: null },
        ],
        tag: 'kind',
        variants: [
          { case: 'dot', type: '0' },
          { case: 'circle', type: '7' },
        ],
      },
      { name: 'int', 'meta-type': 'builtin', 'json-type': 'int' },
      {
        name: '5',
        'meta-type': 'enum',
        members: [{ name: 'fast' }, { name: 'slow' }],
        values: ['fast', 'slow'],
      },
      { name: '[3]', 'meta-type': 'array', 'element-type': '3' },
      {
        name: '6',
        'meta-type': 'enum',
        members: [{ name: 'dot' }, { name: 'circle' }],
        values: ['dot', 'circle'],
      },
      { name: '7', 'meta-type': 'object', members: [{ name: 'radius', type: 'number' }] },
      { name: 'number', 'meta-type': 'builtin', 'json-type': 'number' },
    ]);
  });

  test('is documented in Markdown', () => {
    expect(document(told)).toBe(`## Commands

### tree-add

(unstable) Adds a tree.

| member | type | |
| --- | --- | --- |
| \`tree\` | [Tree](#tree) | what \\| to add |
| \`shape\` | [Shape](#shape), optional | (deprecated) |

Returns: list of str

### quit

Ends.

## Events

### GROWN

A tree grew.

| member | type | |
| --- | --- | --- |
| \`by\` | int, 0 to 255 |  |
| \`how\` | [How](#how) |  |

### GONE

No more.

## Types

### How

One of \`fast\`, \`slow\`.

### Shape

| member | type | |
| --- | --- | --- |
| \`kind\` | one of \`dot\`, \`circle\` |  |
| \`label\` | str, optional |  |

With \`kind\` \`dot\`: nothing more

With \`kind\` \`circle\`:

| member | type | |
| --- | --- | --- |
| \`radius\` | number |  |

### Tree

| member | type | |
| --- | --- | --- |
| \`value\` | int |  |
| \`children\` | list of [Tree](#tree), optional |  |
`);
  });
});
