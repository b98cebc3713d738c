import { Float } from './json.ts';
import { isCharacter } from './utf8.ts';

const SHORT: Readonly<Record<string, string>> = {
  '"': '\\"',
  '\\': '\\\\',
  '\b': '\\b',
  '\f': '\\f',
  '\n': '\\n',
  '\r': '\\r',
  '\t': '\\t',
};

/**
 * JSON in ASCII, spaced as QEMU does; no line end. Members that are `undefined` are left out.
 * @throws TypeError for what JSON cannot say
 */
export function toJson(value: unknown): string {
  if (value === null) return 'null';
  switch (typeof value) {
    case 'string':
      return quoted(value);
    case 'boolean':
    case 'bigint':
      return String(value);
    case 'number':
      if (Number.isFinite(value)) return String(value);
      break;
    case 'object':
      if (Array.isArray(value)) return `[${value.map(toJson).join(', ')}]`;
      return value instanceof Float ? float(value.value) : object(value);
  }
  throw new TypeError(`JSON cannot say ${String(value)}`);
}

function object(value: object): string {
  const members = Object.entries(value).filter(([, member]) => member !== undefined);
  return `{${members.map(([name, member]) => `${quoted(name)}: ${toJson(member)}`).join(', ')}}`;
}

/** A number beyond all doubles is read as infinite, and is written so that it is read as such again. */
function float(value: number): string {
  if (Object.is(value, -0)) return '-0';
  if (Number.isFinite(value)) return String(value);
  return value > 0 ? '1e999' : '-1e999';
}

function quoted(text: string): string {
  return `"${text.replace(/[^ !#-[\]-~]/gu, escaped)}"`;
}

function escaped(character: string): string {
  const short = SHORT[character];
  if (short !== undefined) return short;
  if (!isCharacter(character.codePointAt(0) ?? -1)) return '\\uFFFD';
  return Array.from({ length: character.length }, (_, at) => unit(character.charCodeAt(at))).join(
    '',
  );
}

function unit(code: number): string {
  return `\\u${code.toString(16).toUpperCase().padStart(4, '0')}`;
}
