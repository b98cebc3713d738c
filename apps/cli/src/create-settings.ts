import { UsageError } from './failure.ts';
import { table } from './output/table.ts';

/** What `-o a=b,c=d` said, by name. */
export type Settings = Readonly<Record<string, string>>;

/** One setting of a format. */
interface Setting {
  readonly about: string;
  /** The values it can have; absent: any, checked by whoever uses it. */
  readonly choices?: readonly string[];
}

const SIZE: Readonly<Record<string, Setting>> = { size: { about: 'virtual size in bytes' } };

const SETTINGS: Readonly<Record<string, Readonly<Record<string, Setting>>>> = {
  raw: SIZE,
  qcow2: {
    ...SIZE,
    backing_file: { about: 'as -b' },
    backing_fmt: { about: 'as -F' },
    cluster_size: { about: 'bytes: a power of two from 512 to 2M; default 64k' },
    compat: { about: 'version of the format; default v3', choices: ['0.10', 'v2', '1.1', 'v3'] },
    compression_type: { about: 'for what is compressed later', choices: ['zlib', 'zstd'] },
    extended_l2: { about: 'subclusters', choices: ['on', 'off'] },
    lazy_refcounts: { about: 'QEMU may postpone refcounts', choices: ['on', 'off'] },
    preallocation: { about: 'of clusters', choices: ['off', 'metadata', 'falloc', 'full'] },
    refcount_bits: { about: '1, 2, 4, 8, 16, 32 or 64; default 16' },
  },
};

/** Reads `-o`, given once or more. @throws UsageError for what the format does not have */
export function settingsOf(options: readonly string[], format: string): Settings {
  const settings: Record<string, string> = {};
  for (const part of options.flatMap((option) => option.split(','))) {
    const at = part.indexOf('=');
    const [name, value] = at < 0 ? [part, 'on'] : [part.slice(0, at), part.slice(at + 1)];
    const known = SETTINGS[format]?.[name];
    if (known === undefined)
      throw new UsageError(`Invalid -o option '${name}' for format ${format}; see '-o help'`);
    if (known.choices?.includes(value) === false)
      throw new UsageError(
        `Invalid -o ${name}=${value}: ${name} can be ${known.choices.join(' or ')}`,
      );
    settings[name] = value;
  }
  return settings;
}

/** What `-o` can say, as a table. */
export function settingsHelp(format: string): string {
  const rows = Object.entries(SETTINGS[format] ?? {}).map(([name, { about, choices }]) => [
    `  ${name}=${choices === undefined ? '...' : choices.join('|')}`,
    about,
  ]);
  return `Supported options:\n${table(rows)}`;
}
