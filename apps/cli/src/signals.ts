import { constants } from 'node:os';
import { DownfoldError } from '@downfold/units';
import { FailureWithCode } from './failure.ts';
import { printError } from './output/print.ts';

const BASE_EXIT = 128;

/** The first of these; `exitCode` is the shell's: 129, 130 or 143. */
export interface Interruption extends Disposable {
  readonly signal: AbortSignal;
  /** Null while nothing came. */
  readonly exitCode: number | null;
}

const ENDING = ['SIGHUP', 'SIGINT', 'SIGTERM'] as const;

/** Turns the first signal that is to end the process, as that of a terminal that is closed, into an abort signal; the second ends it at once. */
export function interruption(saying: string): Interruption {
  const controller = new AbortController();
  let exitCode: number | null = null;
  const listener = (name: (typeof ENDING)[number]): void => {
    const code = BASE_EXIT + constants.signals[name];
    if (exitCode !== null) process.exit(code);
    exitCode = code;
    printError(`\ndownfold: ${name}: ${saying}`);
    controller.abort(new DOMException(`stopped by ${name}`, 'AbortError'));
  };
  for (const name of ENDING) process.on(name, listener);
  return {
    signal: controller.signal,
    get exitCode() {
      return exitCode;
    },
    [Symbol.dispose]: () => {
      for (const name of ENDING) process.off(name, listener);
    },
  };
}

/** How a job ends that was stopped while it was at work, or while it waited after a failure. Its message says how to go on. */
const AT_A_CONSISTENT_POINT: ReadonlySet<string> = new Set(['COMMIT_CANCELLED', 'COMMIT_STOPPED']);

/** A command ended because of a signal, at a consistent point. */
export class Stopped extends FailureWithCode<'STOPPED'> {
  override readonly name: string = 'Stopped';

  constructor(exitCode: number, message: string, cause: unknown) {
    super(exitCode, 'STOPPED', message, { exitCode }, cause);
  }
}

/**
 * What to throw on for `cause`: a `Stopped` when it comes of the signal, else the cause itself.
 * @param early what to say when the job was stopped before its first step
 */
export function stoppedBy(
  { signal, exitCode }: Interruption,
  cause: unknown,
  early: string,
): unknown {
  if (exitCode === null) return cause;
  if (cause === signal.reason) return new Stopped(exitCode, early, cause);
  if (cause instanceof DownfoldError && AT_A_CONSISTENT_POINT.has(cause.code))
    return new Stopped(exitCode, cause.message, cause);
  return cause;
}
