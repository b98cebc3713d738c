import { type Interface, NO_MEMBERS } from './command.ts';
import {
  anything,
  bool,
  type Definition,
  definitionOf,
  deprecated,
  type Feature,
  list,
  type MemberDefinition,
  oneOf,
  optional,
  type StructDefinition,
  str,
  struct,
  type Type,
  union,
} from './types.ts';

const JSON_TYPES = {
  str: 'string',
  number: 'number',
  int: 'int',
  bool: 'boolean',
  null: 'null',
  any: 'value',
} as const;

const META_TYPES = ['builtin', 'enum', 'array', 'object', 'alternate', 'command', 'event'] as const;

type Builtin = keyof typeof JSON_TYPES;

const features: { readonly features: ReturnType<typeof optional<readonly string[]>> } = {
  features: optional(list(str)),
};

const member: Type<object> = struct(
  // of any type in QEMU, and always null
  { name: str, type: str, default: optional(anything), ...features },
  'SchemaInfoObjectMember',
);

/** One entry of what `query-qmp-schema` returns. */
export const schemaInfo: Type<object> = union({
  name: 'SchemaInfo',
  tag: 'meta-type',
  base: { name: str, 'meta-type': oneOf(META_TYPES, 'SchemaMetaType'), ...features },
  variants: {
    builtin: struct(
      {
        'json-type': oneOf(
          ['string', 'number', 'int', 'boolean', 'null', 'object', 'array', 'value'],
          'JSONType',
        ),
      },
      'SchemaInfoBuiltin',
    ),
    enum: struct(
      {
        members: list(struct({ name: str, ...features }, 'SchemaInfoEnumMember')),
        values: deprecated(list(str)),
      },
      'SchemaInfoEnum',
    ),
    array: struct({ 'element-type': str }, 'SchemaInfoArray'),
    object: struct(
      {
        members: list(member),
        tag: optional(str),
        variants: optional(list(struct({ case: str, type: str }, 'SchemaInfoObjectVariant'))),
      },
      'SchemaInfoObject',
    ),
    alternate: struct(
      { members: list(struct({ type: str }, 'SchemaInfoAlternateMember')) },
      'SchemaInfoAlternate',
    ),
    command: struct(
      { 'arg-type': str, 'ret-type': str, 'allow-oob': optional(bool) },
      'SchemaInfoCommand',
    ),
    event: struct({ 'arg-type': str }, 'SchemaInfoEvent'),
  },
});

/** What `query-qmp-schema` returns: QEMU's format, with numbers for the names of types as QEMU has them. */
export function introspect({ commands, events }: Interface): readonly object[] {
  const types = new TypeTable();
  const entries: object[] = [];
  for (const [name, { arguments: args, returns, features }] of Object.entries(commands))
    entries.push({
      name,
      'meta-type': 'command',
      'arg-type': types.nameOf(args),
      'ret-type': types.nameOf(returns ?? NO_MEMBERS),
      ...withFeatures(features),
    });
  for (const [name, { data, features }] of Object.entries(events))
    entries.push({
      name,
      'meta-type': 'event',
      'arg-type': types.nameOf(data ?? NO_MEMBERS),
      ...withFeatures(features),
    });
  return [...entries, ...types.entries()];
}

/** Gives types their numbers, in the order in which they are met. */
class TypeTable {
  readonly #named = new Map<string, { readonly name: string; readonly definition: Definition }>();
  readonly #numbers = new Map<Definition, string>();

  constructor() {
    // everything that is empty is number 0, as in QEMU
    this.#numbers.set(definitionOf(NO_MEMBERS), '0');
    this.#named.set('0', { name: '0', definition: definitionOf(NO_MEMBERS) });
  }

  nameOf(type: Type<unknown>): string {
    const definition = definitionOf(type);
    const name = this.#nameFor(definition);
    if (!this.#named.has(name)) this.#named.set(name, { name, definition });
    return name;
  }

  #nameFor(definition: Definition): string {
    if (definition.kind in JSON_TYPES) return definition.kind;
    if (definition.kind === 'list') return `[${this.nameOf(definition.of)}]`;
    if (isEmpty(definition)) return '0';
    const known = this.#numbers.get(definition);
    if (known !== undefined) return known;
    const number = String(this.#numbers.size);
    this.#numbers.set(definition, number);
    return number;
  }

  /** Every type that was met, and those that are met while they are told. */
  *entries(): Generator<object, void, void> {
    for (const { name, definition } of this.#named.values())
      yield { name, ...this.#entry(definition) };
  }

  #entry(definition: Definition): object {
    switch (definition.kind) {
      case 'list':
        return { 'meta-type': 'array', 'element-type': this.nameOf(definition.of) };
      case 'enum': {
        const { values } = definition;
        return { 'meta-type': 'enum', members: values.map((name) => ({ name })), values };
      }
      case 'alternate': {
        const members = definition.branches.map((branch) => ({ type: this.nameOf(branch) }));
        return { 'meta-type': 'alternate', members };
      }
      case 'struct':
        return { 'meta-type': 'object', ...this.#object(definition) };
      default:
        return { 'meta-type': 'builtin', 'json-type': JSON_TYPES[definition.kind as Builtin] };
    }
  }

  #object({ members, union: choice }: StructDefinition): object {
    const told = [...members].map(([name, each]) => this.#member(name, each));
    if (choice === null) return { members: told };
    const variants = [...choice.variants].map(([value, type]) => ({
      case: value,
      type: this.nameOf(type),
    }));
    return { members: told, tag: choice.tag, variants };
  }

  #member(name: string, { type, optional: may, features }: MemberDefinition): object {
    return {
      name,
      type: this.nameOf(type),
      ...(may ? { default: null } : {}),
      ...withFeatures(features),
    };
  }
}

function isEmpty(definition: Definition): boolean {
  return definition.kind === 'struct' && definition.members.size === 0 && definition.union === null;
}

function withFeatures(features: readonly Feature[]): object {
  return features.length === 0 ? {} : { features };
}
