import { checked, type Definition, definitionOf, type Json, type Type } from '@downfold/qmp';
import { ServerError } from '../errors.ts';

/** `a.b=c` as objects, with strings for values. */
export interface Keyval {
  readonly [name: string]: string | Keyval;
}

/** A `Keyval` that is being put together. */
type Building = Map<string, string | Building>;

/**
 * QEMU's keyval syntax: `name=value` separated by commas; dots in names lead into objects, `,,` is a comma in a value; of two values
 * the last one counts. A first part without `=` is the value of `implied`. @throws ServerError `SERVER_USAGE`
 */
export function parseKeyval(text: string, implied: string | null): Keyval {
  const top: Building = new Map();
  for (const [index, part] of partsOf(text).entries()) {
    const equals = part.indexOf('=');
    const isImplied = equals < 0 && index === 0 && implied !== null;
    if (equals <= 0 && !isImplied) throw usage(text, `'${part}' is no NAME=VALUE`);
    const name = isImplied ? implied : part.slice(0, equals);
    put(top, name.split('.'), part.slice(isImplied ? 0 : equals + 1), text);
  }
  return plainOf(top);
}

/** Parts between single commas; a double one stands for one. */
function partsOf(text: string): readonly string[] {
  const parts: string[] = [''];
  for (const [piece] of text.matchAll(/,,|,|[^,]+/g)) {
    if (piece === ',') parts.push('');
    else parts[parts.length - 1] += piece === ',,' ? ',' : piece;
  }
  if (parts.at(-1) === '' && parts.length > 1) parts.pop();
  return parts;
}

function put(top: Building, path: readonly string[], value: string, text: string): void {
  let at = top;
  for (const name of path.slice(0, -1)) {
    const inner = at.get(name) ?? new Map();
    if (typeof inner === 'string') throw usage(text, `'${name}' is a value and an object`);
    at.set(name, inner);
    at = inner;
  }
  const last = path.at(-1) ?? '';
  if (at.get(last) instanceof Map || path.includes(''))
    throw usage(text, `'${path.join('.')}' cannot be set`);
  at.set(last, value);
}

function plainOf(building: Building): Keyval {
  return Object.fromEntries(
    [...building].map(([name, value]) => [
      name,
      typeof value === 'string' ? value : plainOf(value),
    ]),
  );
}

/** An option as errors show it: without the rest of a secret, since they end up in logs. */
function shown(text: string): string {
  return text.replace(/(\bdata"?\s*[=:]).*/s, '$1…');
}

function usage(text: string, problem: string): ServerError {
  return new ServerError('SERVER_USAGE', `'${shown(text)}': ${problem}`);
}

/**
 * An option in either form, JSON or keyval, as `type` has it.
 * @throws ServerError `SERVER_USAGE`; what is wrong with a value is said as over QMP
 */
export function optionOf<T>(type: Type<T>, text: string, implied: string | null): T {
  try {
    if (text.startsWith('{')) return checked(type, JSON.parse(text) as Json);
    return checked(type, suited(definitionOf(type), parseKeyval(text, implied)));
  } catch (cause) {
    if (cause instanceof ServerError) throw cause;
    // what the parser says of it quotes it
    if (cause instanceof SyntaxError) throw usage(text, 'is no JSON');
    throw new ServerError(
      'SERVER_USAGE',
      `'${shown(text)}': ${cause instanceof Error ? cause.message : String(cause)}`,
      {},
      cause,
    );
  }
}

const BOOLEANS: Readonly<Record<string, boolean>> = {
  on: true,
  yes: true,
  true: true,
  y: true,
  off: false,
  no: false,
  false: false,
  n: false,
};

/** Strings as the values that a type wants; what does not suit stays, and is refused by the check. */
function suited(definition: Definition, value: string | Keyval): Json {
  if (typeof value === 'string') {
    if (definition.kind === 'bool') return BOOLEANS[value] ?? value;
    if (definition.kind === 'int' && /^\d+$/.test(value)) return Number(value);
    return value;
  }
  const object = objectIn(definition);
  if (object === null) return value;
  const members = new Map(object.members);
  const tag = object.union === null ? undefined : value[object.union.tag];
  const variant = typeof tag === 'string' ? object.union?.variants.get(tag) : undefined;
  const inner = variant === undefined ? null : objectIn(definitionOf(variant));
  for (const [name, member] of inner?.members ?? []) members.set(name, member);
  return Object.fromEntries(
    Object.entries(value).map(([name, one]) => {
      const member = members.get(name);
      return [name, member === undefined ? one : suited(definitionOf(member.type), one)];
    }),
  );
}

/** The object that a definition is, or has for a branch. */
function objectIn(definition: Definition): Extract<Definition, { kind: 'struct' }> | null {
  if (definition.kind === 'struct') return definition;
  if (definition.kind !== 'alternate') return null;
  for (const branch of definition.branches) {
    const object = objectIn(definitionOf(branch));
    if (object !== null) return object;
  }
  return null;
}
