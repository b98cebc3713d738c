/** What QEMU's introspection tells about a member, a command or a type. */
export type Feature = 'deprecated' | 'unstable' | (string & {});

/** How an integer is told from others: `int` is any. */
export interface IntKind {
  /** What an error calls it, where QEMU has a word. */
  readonly word: string | null;
  readonly unsigned: boolean;
  readonly min: number;
  readonly max: number;
}

/** A member of a struct, resolved. */
export interface MemberDefinition {
  readonly type: Type<unknown>;
  readonly optional: boolean;
  readonly features: readonly Feature[];
  readonly about: string;
}

/** Members that are there whatever the tag, the tag among them, and those that depend on its value. */
export interface UnionDefinition {
  readonly tag: string;
  readonly variants: ReadonlyMap<string, Type<unknown>>;
}

/** An object; a union is one whose further members depend on a tag. */
export interface StructDefinition {
  readonly kind: 'struct';
  readonly name: string | null;
  readonly members: ReadonlyMap<string, MemberDefinition>;
  readonly union: UnionDefinition | null;
}

/** One of a few strings. */
export interface EnumDefinition {
  readonly kind: 'enum';
  readonly name: string | null;
  readonly values: readonly string[];
}

/** One of several types that JSON can tell apart. */
export interface AlternateDefinition {
  readonly kind: 'alternate';
  readonly name: string;
  readonly branches: readonly Type<unknown>[];
}

/** What a type is, as data. */
export type Definition =
  | { readonly kind: 'str' | 'bool' | 'number' | 'null' | 'any' }
  | { readonly kind: 'int'; readonly int: IntKind }
  | { readonly kind: 'list'; readonly of: Type<unknown> }
  | EnumDefinition
  | AlternateDefinition
  | StructDefinition;

/** A type of QMP whose values are `T` in TypeScript. From one come checks, TypeScript types, introspection and documentation. */
export interface Type<T> {
  /** A function where a type contains itself. */
  readonly definition: Definition | (() => Definition);
  /** Never there: carries `T`. */
  readonly $value?: T;
}

/** A member that is more than a type: optional, deprecated, described. */
export interface Member<T, Optional extends boolean> {
  readonly type: Type<T>;
  readonly optional: Optional;
  readonly features: readonly Feature[];
  readonly about: string;
}

/** Members by name: types, or what `optional`, `deprecated`, `unstable` and `about` make of them. */
export type Members = Readonly<Record<string, Type<unknown> | Member<unknown, boolean>>>;

type ValueOf<M> = M extends Member<infer T, boolean> ? T : M extends Type<infer T> ? T : never;
type OptionalNames<M> = {
  [Name in keyof M]: M[Name] extends Member<unknown, true> ? Name : never;
}[keyof M];
type Flat<T> = { [Name in keyof T]: T[Name] } & {};

/** The TypeScript type of an object with members `M`. */
export type ObjectOf<M> = Flat<
  { readonly [Name in Exclude<keyof M, OptionalNames<M>>]: ValueOf<M[Name]> } & {
    readonly [Name in OptionalNames<M>]?: ValueOf<M[Name]>;
  }
>;

/** The TypeScript type of the values of a `Type`. */
export type Infer<X> = X extends Type<infer T> ? T : never;

/** Any string. */
export const str: Type<string> = { definition: { kind: 'str' } };
/** `true` or `false`. */
export const bool: Type<boolean> = { definition: { kind: 'bool' } };
/** Any number. */
export const number: Type<number> = { definition: { kind: 'number' } };
/** `null`, as a branch of an alternate. */
export const nothing: Type<null> = { definition: { kind: 'null' } };
/** Any JSON. */
export const anything: Type<unknown> = { definition: { kind: 'any' } };

const MOST = Number.MAX_SAFE_INTEGER;

function integer(
  word: string | null,
  min: number,
  max: number,
  unsigned: boolean = min === 0,
): Type<number> {
  return { definition: { kind: 'int', int: { word, unsigned, min, max } } };
}

/** An integer of at most 2^53-1 either way; QEMU's are 64-bit. */
export const int: Type<number> = integer(null, -MOST, MOST);
/** QEMU's `int32`. */
export const int32: Type<number> = integer('int32_t', -(2 ** 31), 2 ** 31 - 1);
/** QEMU's `uint8`. */
export const uint8: Type<number> = integer('uint8_t', 0, 2 ** 8 - 1);
/** QEMU's `uint16`. */
export const uint16: Type<number> = integer('uint16_t', 0, 2 ** 16 - 1);
/** QEMU's `uint32`. */
export const uint32: Type<number> = integer('uint32_t', 0, 2 ** 32 - 1);
/** QEMU's `uint64` and `size`, up to 2^53-1. Negative ones, which QEMU takes for huge ones, are refused. */
export const uint64: Type<number> = integer(null, 0, MOST);

/** An integer from `min` to `max`. */
export function bounded(min: number, max: number): Type<number> {
  if (!(Number.isSafeInteger(min) && Number.isSafeInteger(max) && min <= max))
    throw new RangeError(`no range of integers: ${min} to ${max}`);
  return integer(null, min, max, false);
}

/** One of `values`. */
export function oneOf<const V extends string>(values: readonly V[], name?: string): Type<V> {
  return { definition: { kind: 'enum', name: name ?? null, values } };
}

/** A list. */
export function list<T>(of: Type<T>): Type<readonly T[]> {
  return { definition: { kind: 'list', of } };
}

/** An object. */
export function struct<const M extends Members>(members: M, name?: string): Type<ObjectOf<M>> {
  return {
    definition: { kind: 'struct', name: name ?? null, members: resolved(members), union: null },
  };
}

/**
 * An object with a tag that is one of the names of `variants`, the members of `base`, and those of the variant that the tag
 * names. The tag comes first, unless `base` has it.
 */
export function union<
  const Tag extends string,
  const Base extends Members,
  const Variants extends Readonly<Record<string, Type<object>>>,
>(spec: {
  readonly name: string;
  readonly tag: Tag;
  /** The name of the tag's type. */
  readonly tagType?: string;
  readonly base: Base;
  readonly variants: Variants;
}): Type<
  {
    [Case in keyof Variants & string]: Flat<
      { readonly [T in Tag]: Case } & ObjectOf<Base> & Infer<Variants[Case]>
    >;
  }[keyof Variants & string]
> {
  const { name, tag, tagType, base, variants } = spec;
  const tags = oneOf(Object.keys(variants), tagType);
  return {
    definition: {
      kind: 'struct',
      name,
      members: resolved(Object.hasOwn(base, tag) ? base : { [tag]: tags, ...base }),
      union: { tag, variants: new Map(Object.entries(variants)) },
    },
  };
}

/** One of `branches`, which JSON must tell apart: at most one each for strings, objects, lists, numbers, booleans and `null`. */
export function alternate<const B extends readonly Type<unknown>[]>(
  name: string,
  branches: B,
): Type<Infer<B[number]>> {
  return { definition: { kind: 'alternate', name, branches } };
}

/** A type that contains itself: `get` is called when it is first needed. */
export function lazy<T>(get: () => Type<T>): Type<T> {
  return { definition: () => definitionOf(get()) };
}

/** What `type` is. */
export function definitionOf(type: Type<unknown>): Definition {
  const { definition } = type;
  return typeof definition === 'function' ? definition() : definition;
}

/** A member that may be left out. */
export function optional<T>(member: Type<T> | Member<T, boolean>): Member<T, true> {
  return { ...asMember(member), optional: true };
}

/** A member that will go. */
export function deprecated<T, O extends boolean>(member: Member<T, O>): Member<T, O>;
export function deprecated<T>(member: Type<T>): Member<T, false>;
export function deprecated<T>(member: Type<T> | Member<T, boolean>): Member<T, boolean> {
  return withFeature(member, 'deprecated');
}

/** A member that may change. */
export function unstable<T, O extends boolean>(member: Member<T, O>): Member<T, O>;
export function unstable<T>(member: Type<T>): Member<T, false>;
export function unstable<T>(member: Type<T> | Member<T, boolean>): Member<T, boolean> {
  return withFeature(member, 'unstable');
}

/** A member with a line about it, for the documentation. */
export function about<T, O extends boolean>(text: string, member: Member<T, O>): Member<T, O>;
export function about<T>(text: string, member: Type<T>): Member<T, false>;
export function about<T>(text: string, member: Type<T> | Member<T, boolean>): Member<T, boolean> {
  return { ...asMember(member), about: text };
}

function withFeature<T>(
  member: Type<T> | Member<T, boolean>,
  feature: Feature,
): Member<T, boolean> {
  const plain = asMember(member);
  return { ...plain, features: [...plain.features, feature] };
}

function asMember<T>(member: Type<T> | Member<T, boolean>): Member<T, boolean> {
  return 'type' in member ? member : { type: member, optional: false, features: [], about: '' };
}

function resolved(members: Members): ReadonlyMap<string, MemberDefinition> {
  return new Map(Object.entries(members).map(([name, member]) => [name, asMember(member)]));
}
