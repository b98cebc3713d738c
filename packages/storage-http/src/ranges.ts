import type { IncomingHttpHeaders } from 'node:http';
import { LARGEST_OFFSET } from '@downfold/units';
import { httpError, type Place, statusError } from './errors.ts';
import type { Answer, HttpClient } from './http-client.ts';
import { conditionOf, isOf, type Validator, validatorOf } from './validator.ts';

/** One version of a resource. */
export interface Version {
  /** Where it is after redirects. */
  readonly url: URL;
  readonly length: number;
  readonly validator: Validator;
}

const SATISFIED = /^bytes (\d+)-(\d+)\/(\d+)$/;
const UNSATISFIED = /^bytes \*\/0$/;

/**
 * Asks for the first byte, which tells the length, the validator, and whether ranges work.
 * @throws StorageError `STORAGE_UNSUPPORTED` when one of them cannot be had
 */
export async function probe(client: HttpClient, url: URL, file: string): Promise<Version> {
  const place = { file, offset: null };
  const answer = await client.get(url, { range: 'bytes=0-0' }, place);
  answer.response.destroy();
  const { status, response } = answer;
  const empty = status === 416 && UNSATISFIED.test(response.headers['content-range'] ?? '');
  if (status === 200)
    throw httpError('STORAGE_UNSUPPORTED', place, 'the server does not serve ranges');
  if (status !== 206 && !empty) throw statusError(status, place);
  assertPlain(response.headers, place);
  const validator = validatorOf(response.headers);
  if (validator === null)
    throw httpError(
      'STORAGE_UNSUPPORTED',
      place,
      'the server names no version of it: neither a strong ETag nor a Last-Modified that is over a second old',
    );
  const length = empty ? 0 : totalOf(response.headers, { first: 0, last: 0 }, place);
  return { url: answer.url, length, validator };
}

/** Fills `target` with the bytes from `offset` of that version, or rejects. */
export async function readRange(
  client: HttpClient,
  version: Version,
  target: Uint8Array,
  place: Place & { readonly offset: number },
): Promise<void> {
  const range = { first: place.offset, last: place.offset + target.length - 1 };
  const headers = {
    range: `bytes=${range.first}-${range.last}`,
    ...conditionOf(version.validator),
  };
  const answer = await client.get(version.url, headers, place);
  try {
    assertVersion(answer, version, range, place);
  } catch (cause) {
    answer.response.destroy();
    throw cause;
  }
  await fill(target, answer, place);
}

interface Range {
  readonly first: number;
  readonly last: number;
}

function assertVersion(
  { status, response: { headers } }: Answer,
  { validator, length }: Version,
  range: Range,
  place: Place,
): void {
  const changed = (how: string): never => {
    throw httpError('STORAGE_CHANGED', place, `was replaced while it was open: ${how}`, { status });
  };
  if (status === 412 || status === 416) changed(`the server answers ${status}`);
  if (status !== 200 && status !== 206) throw statusError(status, place);
  if (!isOf(validator, headers))
    changed(`${validator.kind} is ${headers[validator.kind]} and was ${validator.value}`);
  if (status === 200)
    throw httpError('STORAGE_IO', place, 'the server sends everything where a range was asked for');
  assertPlain(headers, place);
  const total = totalOf(headers, range, place);
  if (total !== length) changed(`its length is ${total} bytes and was ${length}`);
}

/** Ranges of a compressed body are no ranges of the file. */
function assertPlain(headers: IncomingHttpHeaders, place: Place): void {
  const encoding = headers['content-encoding'] ?? 'identity';
  if (encoding.toLowerCase() === 'identity') return;
  throw httpError('STORAGE_UNSUPPORTED', place, `the server sends it encoded ('${encoding}')`);
}

/** The length of the whole, by an answer of exactly this range. */
function totalOf(headers: IncomingHttpHeaders, { first, last }: Range, place: Place): number {
  const told = headers['content-range'] ?? '';
  const [from, to, total] = (SATISFIED.exec(told) ?? []).slice(1).map(Number);
  if (from !== first || to !== last || total === undefined || total <= last)
    throw httpError('STORAGE_IO', place, `asked for bytes ${first}-${last}, got '${told}'`);
  if (total > LARGEST_OFFSET)
    throw httpError('STORAGE_RANGE', place, `${total} bytes cannot be addressed`);
  return total;
}

async function fill(target: Uint8Array, { response }: Answer, place: Place): Promise<void> {
  let done = 0;
  try {
    for await (const chunk of response as AsyncIterable<Uint8Array>) {
      const room = target.length - done;
      if (chunk.length > room) throw new Error('the body is longer than it was said to be');
      target.set(chunk, done);
      done += chunk.length;
    }
    if (done < target.length) throw new Error('the body is shorter than it was said to be');
  } catch (cause) {
    const problem = `${done} of ${target.length} bytes came: ${(cause as Error).message}`;
    throw httpError('STORAGE_IO', place, problem, {}, cause);
  }
}
