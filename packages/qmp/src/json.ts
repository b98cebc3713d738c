/** A number written with a fraction or an exponent, or too large for 64 bits. QMP takes no `1.0` for an integer. */
export class Float {
  readonly value: number;

  constructor(value: number) {
    this.value = value;
  }
}

/** JSON as it was read: integers beyond 2^53-1 are `bigint`, up to 64 bits. */
export type Json = null | boolean | number | bigint | string | Float | readonly Json[] | JsonObject;

/** An object without a prototype, so that any name is a name. */
export interface JsonObject {
  readonly [name: string]: Json;
}

/** Whether `value` is a JSON object, and no list, `null` or `Float`. */
export function isObject(value: Json | undefined): value is JsonObject {
  return (
    typeof value === 'object' &&
    value !== null &&
    !Array.isArray(value) &&
    !(value instanceof Float)
  );
}

/** The same with plain numbers and plain objects. */
export function plain(value: Json): unknown {
  if (value instanceof Float) return value.value;
  if (Array.isArray(value)) return value.map(plain);
  if (isObject(value))
    return Object.fromEntries(Object.entries(value).map(([name, member]) => [name, plain(member)]));
  return value;
}
