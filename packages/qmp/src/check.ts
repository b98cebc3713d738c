import { QmpError } from './errors.ts';
import { Float, isObject, type Json, type JsonObject, plain } from './json.ts';
import {
  type AlternateDefinition,
  type Definition,
  definitionOf,
  type EnumDefinition,
  type IntKind,
  type MemberDefinition,
  type StructDefinition,
  type Type,
} from './types.ts';

/** Where a value stands: `full` from the arguments down, `name` in its object; in a list it has none, and QEMU prints `null`. */
interface Place {
  readonly full: string;
  readonly name: string;
}

const TOP: Place = { full: '', name: 'null' };
const LEAST_INT = -(2n ** 63n);
const MOST_INT = 2n ** 63n - 1n;

/**
 * `value` as the type has it: plain numbers, nothing but what the type knows.
 * @throws QmpError `GenericError`, in the words of QEMU 7.2 and for what QEMU would find first: members in the order of the
 * type, then what is unexpected
 */
export function checked<T>(type: Type<T>, value: Json): T {
  return check(definitionOf(type), value, TOP) as T;
}

function check(definition: Definition, value: Json, place: Place): unknown {
  switch (definition.kind) {
    case 'any':
      return plain(value);
    case 'null':
      return value === null ? null : wrongType(place.full, 'null');
    case 'str':
      return typeof value === 'string' ? value : wrongType(place.full, 'string');
    case 'bool':
      return typeof value === 'boolean' ? value : wrongType(place.full, 'boolean');
    case 'number':
      return checkNumber(value, place);
    case 'int':
      return checkInt(definition.int, value, place);
    case 'enum':
      return checkEnum(definition, value, place);
    case 'list':
      return checkList(definitionOf(definition.of), value, place);
    case 'struct':
      return checkStruct(definition, value, place);
    case 'alternate':
      return checkAlternate(definition, value, place);
  }
}

function isNumber(value: Json): value is number | bigint | Float {
  return typeof value === 'number' || typeof value === 'bigint' || value instanceof Float;
}

function checkNumber(value: Json, place: Place): number {
  if (!isNumber(value)) return wrongType(place.full, 'number');
  const finite = Number(plain(value));
  if (Number.isFinite(finite)) return finite;
  throw unsuitable(place.name, 'a finite number');
}

/** An integer of 64 bits, signed, or for an unsigned type also unsigned. */
function isInteger(value: Json, unsigned: boolean): value is number | bigint {
  if (typeof value === 'number') return true;
  return typeof value === 'bigint' && value >= LEAST_INT && (unsigned || value <= MOST_INT);
}

function checkInt({ word, unsigned, min, max }: IntKind, value: Json, place: Place): number {
  if (!isInteger(value, unsigned)) {
    if (unsigned) throw unsuitable(place.full, 'uint64');
    return wrongType(place.full, 'integer');
  }
  if (typeof value === 'number' && value >= min && value <= max) return value;
  throw unsuitable(place.name, word ?? `a value between ${min} and ${max}`);
}

function checkEnum({ values }: EnumDefinition, value: Json, place: Place): string {
  if (typeof value !== 'string') return wrongType(place.full, 'string');
  if (values.includes(value)) return value;
  throw new QmpError('GenericError', `Parameter '${place.name}' does not accept value '${value}'`);
}

function checkList(of: Definition, value: Json, place: Place): readonly unknown[] {
  if (!Array.isArray(value)) return wrongType(place.full, 'array');
  return value.map((item: Json, index) =>
    check(of, item, { full: `${place.full}[${index}]`, name: 'null' }),
  );
}

function checkStruct(definition: StructDefinition, value: Json, place: Place): object {
  if (!isObject(value)) return wrongType(place.full, 'object');
  const taken: [name: string, value: unknown][] = [];
  const known = new Set<string>();
  for (const members of memberTables(definition, value, place)) {
    for (const [name, member] of members) {
      known.add(name);
      const given = value[name];
      if (given !== undefined)
        taken.push([name, check(definitionOf(member.type), given, inside(place, name))]);
      else if (!member.optional) throw missing(place, name);
    }
  }
  const stranger = Object.keys(value).find((name) => !known.has(name));
  if (stranger !== undefined)
    throw new QmpError('GenericError', `Parameter '${inside(place, stranger).full}' is unexpected`);
  return Object.fromEntries(taken);
}

/** The members that `value` may have; those of a variant once the tag, which is among the first, has been checked. */
function* memberTables(
  definition: StructDefinition,
  value: JsonObject,
  place: Place,
): Generator<ReadonlyMap<string, MemberDefinition>, void, void> {
  yield definition.members;
  const { union } = definition;
  if (union === null) return;
  const variant = union.variants.get(String(value[union.tag]));
  const inner = variant === undefined ? undefined : definitionOf(variant);
  if (inner?.kind !== 'struct')
    throw new TypeError(`variant of ${inside(place, union.tag).full} is no struct`);
  yield* memberTables(inner, value, place);
}

function checkAlternate(definition: AlternateDefinition, value: Json, place: Place): unknown {
  const branch = definition.branches.map(definitionOf).find((each) => suits(each, value));
  if (branch !== undefined) return check(branch, value, place);
  return wrongType(place.name, definition.name);
}

/** Whether JSON's type of `value` is that of the branch; what is wrong in detail is told by its check. */
function suits({ kind }: Definition, value: Json): boolean {
  switch (kind) {
    case 'str':
    case 'enum':
      return typeof value === 'string';
    case 'struct':
      return isObject(value);
    case 'list':
      return Array.isArray(value);
    case 'bool':
      return typeof value === 'boolean';
    case 'int':
    case 'number':
      return isNumber(value);
    case 'null':
      return value === null;
    default:
      return false;
  }
}

function inside({ full }: Place, name: string): Place {
  return { full: full === '' ? name : `${full}.${name}`, name };
}

function missing(place: Place, name: string): QmpError {
  return new QmpError('GenericError', `Parameter '${inside(place, name).full}' is missing`);
}

function wrongType(place: string, expected: string): never {
  throw new QmpError(
    'GenericError',
    `Invalid parameter type for '${place}', expected: ${expected}`,
  );
}

function unsuitable(place: string, expected: string): QmpError {
  return new QmpError('GenericError', `Parameter '${place}' expects ${expected}`);
}
