import type { Interface } from './command.ts';
import {
  type Definition,
  definitionOf,
  type Feature,
  type MemberDefinition,
  type StructDefinition,
  type Type,
} from './types.ts';

/** Commands, events and named types as Markdown, in their order, types by name; headings from level 2 down. */
export function document({ commands, events }: Interface): string {
  const types = new NamedTypes();
  const parts = ['## Commands'];
  for (const [name, { about, arguments: args, returns, features }] of Object.entries(commands)) {
    const answer = returns === null ? '' : `Returns: ${types.link(returns)}`;
    parts.push(`### ${name}`, withFeatures(about, features), types.members(args), answer);
  }
  if (Object.keys(events).length > 0) parts.push('## Events');
  for (const [name, { about, data, features }] of Object.entries(events))
    parts.push(
      `### ${name}`,
      withFeatures(about, features),
      data === null ? '' : types.members(data),
    );
  parts.push(...types.sections());
  return `${parts.filter((part) => part !== '').join('\n\n')}\n`;
}

/** The types that were linked to, each to be told once. */
class NamedTypes {
  readonly #met = new Map<string, Definition>();

  /** A type in one line. */
  link(type: Type<unknown>): string {
    const definition = definitionOf(type);
    switch (definition.kind) {
      case 'list':
        return `list of ${this.link(definition.of)}`;
      case 'int': {
        const { min, max } = definition.int;
        return Math.max(-min, max) === Number.MAX_SAFE_INTEGER && min !== 0
          ? 'int'
          : `int, ${min} to ${max}`;
      }
      case 'enum':
        return definition.name === null
          ? `one of ${values(definition.values)}`
          : this.#named(definition.name, definition);
      case 'alternate':
        return this.#named(definition.name, definition);
      case 'struct':
        return definition.name === null ? 'object' : this.#named(definition.name, definition);
      default:
        return definition.kind;
    }
  }

  #named(name: string, definition: Definition): string {
    this.#met.set(name, definition);
    return `[${name}](#${name.toLowerCase()})`;
  }

  /** The members of a struct or a union, as tables. */
  members(type: Type<unknown>): string {
    const definition = definitionOf(type);
    return definition.kind === 'struct' ? this.#struct(definition) : '';
  }

  #struct({ members, union }: StructDefinition): string {
    const own = members.size === 0 ? [] : [this.#table(members)];
    if (union === null) return own.join('');
    const variants = [...union.variants].map(
      ([value, type]) => `With \`${union.tag}\` \`${value}\`:${this.#variant(type)}`,
    );
    return [...own, ...variants].join('\n\n');
  }

  /** What follows the colon. */
  #variant(type: Type<unknown>): string {
    const definition = definitionOf(type);
    if (definition.kind === 'struct' && definition.name !== null) return ` ${this.link(type)}`;
    const members = this.members(type);
    return members === '' ? ' nothing more' : `\n\n${members}`;
  }

  #table(members: ReadonlyMap<string, MemberDefinition>): string {
    const rows = [...members].map(([name, { type, optional, features, about }]) => {
      const what = optional ? `${this.link(type)}, optional` : this.link(type);
      return `| \`${name}\` | ${what} | ${withFeatures(about, features).replaceAll('|', '\\|')} |`;
    });
    return ['| member | type | |', '| --- | --- | --- |', ...rows].join('\n');
  }

  /** A section for each type that was met, and for those met in telling of them. */
  sections(): readonly string[] {
    const sections = new Map<string, string>();
    for (const [name, definition] of this.#met)
      sections.set(name, `### ${name}\n\n${this.#section(definition)}`);
    if (sections.size === 0) return [];
    const sorted = [...sections].sort(([a], [b]) => (a < b ? -1 : 1));
    return ['## Types', ...sorted.map(([, section]) => section)];
  }

  #section(definition: Definition): string {
    if (definition.kind === 'enum') return `One of ${values(definition.values)}.`;
    if (definition.kind === 'alternate')
      return `One of: ${definition.branches.map((branch) => this.link(branch)).join('; ')}.`;
    return definition.kind === 'struct' ? this.#struct(definition) : '';
  }
}

function values(all: readonly string[]): string {
  return all.map((value) => `\`${value}\``).join(', ');
}

function withFeatures(about: string, features: readonly Feature[]): string {
  const told = features.length === 0 ? '' : `(${features.join(', ')})`;
  return [told, about].filter((part) => part !== '').join(' ');
}
