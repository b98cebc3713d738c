import type { IncomingHttpHeaders } from 'node:http';
import { numberOf } from '@downfold/storage';

/** What one version of a resource is known by. Both of these are strong: equal values mean equal bytes. */
export type Validator =
  | { readonly kind: 'etag'; readonly value: string }
  | { readonly kind: 'last-modified'; readonly value: string };

/** A date is strong when so many milliseconds had passed since: within a second there may be two versions. */
const STRONG_AFTER_MS = 1000;
const NANOSECONDS_PER_MS = 1_000_000n;

/**
 * The strong validator of an answer; null: it has none. Source: RFC 9110, 8.8.2.2 and 8.8.3.
 */
export function validatorOf(headers: IncomingHttpHeaders): Validator | null {
  const { etag, date } = headers;
  if (etag?.startsWith('"')) return { kind: 'etag', value: etag };
  const modified = headers['last-modified'];
  const age = Date.parse(date ?? '') - Date.parse(modified ?? '');
  if (modified === undefined || !(age >= STRONG_AFTER_MS)) return null;
  return { kind: 'last-modified', value: modified };
}

/** Whether an answer is of that version. One that does not say is not. */
export function isOf({ kind, value }: Validator, headers: IncomingHttpHeaders): boolean {
  return headers[kind] === value;
}

/** Has the server answer 412 when it has another version. */
export function conditionOf({ kind, value }: Validator): Record<string, string> {
  return kind === 'etag' ? { 'if-match': value } : { 'if-unmodified-since': value };
}

/** The version as `FileFacts.modified`: nanoseconds since 1970 when it is a date, else a number made of the tag. */
export function modifiedOf({ kind, value }: Validator): string {
  if (kind === 'last-modified') return (BigInt(Date.parse(value)) * NANOSECONDS_PER_MS).toString();
  return numberOf(value);
}
