import { type ServerOptions, withServer } from '../../ctl/server.ts';
import { UsageError } from '../../failure.ts';
import { printJson } from '../../output/print.ts';

/** `downfold ctl raw`: one command as it is, and what it returns, as JSON. */
export async function raw(text: string, options: ServerOptions): Promise<number> {
  const { execute, args } = parse(text);
  return withServer(options, async (server) => {
    printJson(await server.execute(execute, args));
    return 0;
  });
}

/** A request, or the name of a command alone. @throws UsageError */
function parse(text: string): { readonly execute: string; readonly args: object } {
  if (/^[A-Za-z][A-Za-z0-9_-]*$/.test(text)) return { execute: text, args: {} };
  const {
    execute,
    arguments: args = {},
    ...others
  } = requestOf(text) as Readonly<Record<string, unknown>>;
  const unknown = Object.keys(others).filter((name) => name !== 'id');
  if (unknown.length > 0)
    throw new UsageError(`a request has "execute" and "arguments", not "${unknown.join('", "')}"`);
  if (typeof execute !== 'string' || typeof args !== 'object' || args === null)
    throw usage('"execute" is the name of a command, "arguments" is an object');
  return { execute, args };
}

function requestOf(text: string): object {
  let value: unknown;
  try {
    value = JSON.parse(text, wide);
  } catch (cause) {
    if (!(cause instanceof SyntaxError)) throw cause;
    throw usage(cause.message);
  }
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value;
  throw usage('an object is wanted');
}

/** Integers beyond 2^53-1 as they were written. */
function wide(this: unknown, _: string, value: unknown, context?: { source?: string }): unknown {
  const isWide =
    typeof value === 'number' && Number.isInteger(value) && !Number.isSafeInteger(value);
  return isWide && /^-?\d+$/.test(context?.source ?? '') ? BigInt(context?.source ?? 0) : value;
}

function usage(why: string): UsageError {
  return new UsageError(
    `no QMP request: ${why}; for instance '{"execute": "query-jobs"}', or query-jobs alone`,
  );
}
