import { printable } from '@downfold/chain';

/** What happens, for whoever reads the journal of the system: a line on stderr. */
export type Log = (line: string) => void;

/** Names found in images may hold anything: a line stays a line. */
export const logToStderr: Log = (line) =>
  void process.stderr.write(`downfoldd: ${printable(line)}\n`);

/** What failed, in a line. `DOWNFOLD_DEBUG=1` adds the stack. */
export function lineOf(cause: unknown): string {
  if (!(cause instanceof Error)) return String(cause);
  const line = cause.message.replaceAll(/\s*\n\s*/g, ' ');
  return process.env['DOWNFOLD_DEBUG'] === '1' ? `${line} ${cause.stack ?? ''}` : line;
}
