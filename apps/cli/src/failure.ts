import { printable } from '@downfold/chain';
import { DownfoldError, type ErrorDetails } from '@downfold/units';
import { printError, printJson } from './output/print.ts';

/** The command line itself is wrong: an option, a size, a name. */
export class UsageError extends DownfoldError<'USAGE'> {
  override readonly name: string = 'UsageError';

  constructor(message: string) {
    super('USAGE', message);
  }
}

/** A failure with an exit code of its own. */
export class FailureWithCode<Code extends string = string> extends DownfoldError<Code> {
  override readonly name: string = 'FailureWithCode';
  readonly exitCode: number;

  constructor(
    exitCode: number,
    code: Code,
    message: string,
    details: ErrorDetails = {},
    cause?: unknown,
  ) {
    super(code, message, details, cause);
    this.exitCode = exitCode;
  }
}

/** What the user can do, where the error of a layer below cannot know the command line. */
const NEXT: Readonly<Record<string, string>> = {
  IMAGE_NOT_RECOGNISED: "if it is a raw image, say so with '-f raw'",
  IMAGE_SECRET_NEEDED: "give it: '--secret FILE', or '--secret IMAGE=FILE'",
  IMAGE_NEEDS_REPAIR: "repair it first: 'downfold check -r all FILE'",
  CHAIN_OUTSIDE_ROOTS: "'--allow DIR' does",
  CHAIN_INVALID_IMAGE: "'map' and 'compare' read it with '--force-invalid'",
  STORAGE_LOCKED:
    "stop what uses it; 'info', 'map', 'check' and 'compare' read it all the same with -U",
  STORAGE_NO_SPACE: 'free some space and try again',
};

/** The line for people: what could not be done, why, and what to do. */
function lineOf(cause: unknown, doing: string): string {
  const message = cause instanceof Error ? cause.message : String(cause);
  const line = cause instanceof UsageError ? message : `Could not ${doing}: ${message}`;
  const next = cause instanceof DownfoldError ? nextAfter(cause) : undefined;
  return printable((next === undefined ? line : `${line}; ${next}`).replaceAll(/\s*\n\s*/g, ' '));
}

function nextAfter({ code, details }: DownfoldError): string | undefined {
  // more space would not help
  if (details['errno'] === 'EFBIG') return undefined;
  if (details['feature'] === 'external data file') return "'--allow-data-file' allows it";
  return NEXT[code];
}

/**
 * Tells of a failure: one line on stderr, and with `--output json` also `{"error": {class, desc, details}}` on stdout.
 * `DOWNFOLD_DEBUG=1` adds the stack.
 */
export function report(cause: unknown, doing: string, json: boolean): void {
  const line = lineOf(cause, doing);
  printError(`downfold: ${line}`);
  if (process.env['DOWNFOLD_DEBUG'] === '1' && cause instanceof Error) printError(stackOf(cause));
  if (!json) return;
  const known = cause instanceof DownfoldError;
  printJson({
    error: {
      class: known ? cause.code : 'INTERNAL',
      desc: line,
      details: known ? cause.details : {},
    },
  });
}

function stackOf(cause: Error): string {
  const below = cause.cause instanceof Error ? `\ncaused by ${stackOf(cause.cause)}` : '';
  return `${cause.stack ?? cause.message}${below}`;
}
