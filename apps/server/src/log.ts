import { printable } from '@downfold/chain';

/** How much something matters to whoever reads. */
export const LEVELS = ['debug', 'info', 'warn', 'error'] as const;
export type Level = (typeof LEVELS)[number];

/** `text`: for people and the journal of the system. `json`: an object a line. */
export const LOG_FORMATS = ['text', 'json'] as const;
export type LogFormat = (typeof LOG_FORMATS)[number];

/** What a line is about, for programs: `job`, `export`, `image`, `code`. Never what guests read or wrote. */
export type LogFields = Readonly<Record<string, string | number>>;

/** What happens, for whoever runs the server. */
export type Log = Readonly<Record<Level, (message: string, fields?: LogFields) => void>>;

export interface LogOptions {
  readonly format: LogFormat;
  /** What matters less is left out. */
  readonly level: Level;
  /** Takes whole lines. Default: stderr. */
  readonly write?: (line: string) => void;
  readonly now?: () => Date;
}

/** Characters of a message, or of a field, that are written; names that clients send may be longer. */
const LONGEST = 4096;

const PREFIX: Readonly<Record<Level, string>> = {
  debug: 'debug: ',
  info: '',
  warn: 'warning: ',
  error: 'error: ',
};

/** A log of one line for each message: names found in images, or sent by clients, may hold anything, and a line stays a line. */
export function logTo(options: LogOptions): Log {
  const { format, level, now = () => new Date() } = options;
  const { write = (line) => void process.stderr.write(line) } = options;
  const at = (own: Level): Log[Level] => {
    if (LEVELS.indexOf(own) < LEVELS.indexOf(level)) return () => undefined;
    if (format === 'text')
      return (message) => write(`downfoldd: ${PREFIX[own]}${plain(message)}\n`);
    return (message, fields = {}) => {
      const clean = Object.entries(fields).map(([name, value]) => [
        name,
        typeof value === 'string' ? plain(value) : value,
      ]);
      const line = {
        time: now().toISOString(),
        level: own,
        message: plain(message),
        ...Object.fromEntries(clean),
      };
      write(`${JSON.stringify(line)}\n`);
    };
  };
  return { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') };
}

function plain(text: string): string {
  return printable(text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text);
}

/** What failed, in a line. `DOWNFOLD_DEBUG=1` adds the stack. */
export function lineOf(cause: unknown): string {
  if (!(cause instanceof Error)) return String(cause);
  const line = cause.message.replaceAll(/\s*\n\s*/g, ' ');
  return process.env['DOWNFOLD_DEBUG'] === '1' ? `${line} ${cause.stack ?? ''}` : line;
}

/** The code of a failure, as a field. */
export function codeOf(cause: unknown): LogFields {
  const code = (cause as { readonly code?: unknown } | null)?.code;
  return typeof code === 'string' ? { code } : {};
}
