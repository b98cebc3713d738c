/** What an error is about, in values a program can read: image, offset, limit, found, ... */
export type ErrorDetails = Readonly<
  Record<string, string | number | boolean | null | readonly string[]>
>;

/**
 * The base of every error that Downfold throws on purpose. One subclass a layer, each with a closed
 * union of codes: `code` is API, `message` is for people (one line: what, where, what to do).
 */
export class DownfoldError<Code extends string = string> extends Error {
  override readonly name: string = 'DownfoldError';
  readonly code: Code;
  readonly details: ErrorDetails;

  constructor(code: Code, message: string, details: ErrorDetails = {}, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.code = code;
    this.details = details;
  }
}

/** `UNITS_RANGE`: a number is no offset or length. `UNITS_TOO_LARGE`: it is beyond 2^53-1. */
export type UnitsErrorCode = 'UNITS_RANGE' | 'UNITS_TOO_LARGE';

/** Thrown when a number that came from outside cannot be an offset, a length or a range. */
export class UnitsError extends DownfoldError<UnitsErrorCode> {
  override readonly name: string = 'UnitsError';
}

/** What failed first. What failed afterwards, while everything was closed, is a consequence, and wraps it in an error that says nothing. */
export function firstFailure(cause: unknown): unknown {
  return cause instanceof SuppressedError ? firstFailure(cause.suppressed) : cause;
}
