import { UsageError } from './failure.ts';
import { keyedParts, partsOf } from './keyed-parts.ts';
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

const SWITCH = ['on', 'off'];
/** As qemu-img takes them. */
const SWITCHED: Readonly<Record<string, string>> = {
  yes: 'on',
  true: 'on',
  y: 'on',
  no: 'off',
  false: 'off',
  n: 'off',
};

/** Of how the file system stores a file. */
const HINT: Setting = { about: 'taken, and not passed on to the file system' };

const HASHES = ['sha1', 'sha224', 'sha256', 'sha384', 'sha512', 'ripemd160'];

/** How guest data is encrypted, in the order in which qemu-img shows it. */
const LUKS: Readonly<Record<string, Setting>> = {
  'key-secret': { about: 'ID of the passphrase, as --object has it; default: --secret' },
  'cipher-alg': { about: 'default aes-256', choices: ['aes-128', 'aes-192', 'aes-256'] },
  'cipher-mode': { about: 'default xts', choices: ['xts', 'cbc'] },
  'ivgen-alg': { about: 'default plain64', choices: ['plain', 'plain64', 'essiv'] },
  'ivgen-hash-alg': { about: 'of essiv; default sha256', choices: HASHES },
  'hash-alg': { about: 'of the key slots; default sha256', choices: HASHES },
  'iter-time': { about: 'milliseconds to try a passphrase; default 2000' },
};

/** The same in a qcow2 image. */
const ENCRYPT: Readonly<Record<string, Setting>> = {
  'encrypt.format': { about: 'encrypts the disk', choices: ['luks'] },
  ...Object.fromEntries(Object.entries(LUKS).map(([name, one]) => [`encrypt.${name}`, one])),
};
export const ENCRYPT_SETTINGS: readonly string[] = Object.keys(ENCRYPT);
export const LUKS_SETTINGS: readonly string[] = Object.keys(LUKS);

const SETTINGS: Readonly<Record<string, Readonly<Record<string, Setting>>>> = {
  raw: {
    ...SIZE,
    extent_size_hint: HINT,
    nocow: { ...HINT, choices: SWITCH },
    preallocation: { about: 'of the file', choices: ['off', 'falloc', 'full'] },
  },
  luks: { ...SIZE, ...LUKS },
  qcow2: {
    ...SIZE,
    backing_file: { about: 'as -b' },
    backing_fmt: { about: 'as -F' },
    cluster_size: { about: 'bytes: a power of two from 512 to 2M; default 64k' },
    compat: { about: 'version of the format; default v3', choices: ['0.10', 'v2', '1.1', 'v3'] },
    compression_type: { about: 'for what is compressed later', choices: ['zlib', 'zstd'] },
    data_file: { about: 'a new file for guest data, relative to the directory of the image' },
    data_file_raw: { about: 'the data file alone reads as the disk', choices: SWITCH },
    encryption: { about: "QEMU's old way, which is refused", choices: ['off'] },
    extended_l2: { about: 'subclusters', choices: SWITCH },
    extent_size_hint: HINT,
    lazy_refcounts: { about: 'QEMU may postpone refcounts', choices: SWITCH },
    nocow: { ...HINT, choices: SWITCH },
    preallocation: { about: 'of clusters', choices: ['off', 'metadata', 'falloc', 'full'] },
    ...ENCRYPT,
    refcount_bits: { about: '1, 2, 4, 8, 16, 32 or 64; default 16' },
  },
};

/** Whether `-o`, given once or more, asks what it can say. */
export function asksForHelp(options: readonly string[]): boolean {
  return options.flatMap(partsOf).some((part) => part === 'help' || part === '?');
}

/** Reads `-o`, given once or more. @throws UsageError for what the format does not have */
export function settingsOf(options: readonly string[], format: string): Settings {
  const settings: Record<string, string> = {};
  for (const [name, said] of options.flatMap(keyedParts)) {
    const known = SETTINGS[format]?.[name];
    const value = known?.choices === undefined ? said : (SWITCHED[said] ?? said);
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

/** Whether an image of these settings is of version 2. */
export function isVersion2({ compat }: Settings): boolean {
  return compat === '0.10' || compat === 'v2';
}

/** @throws UsageError for an image with an external data file, where only a file that gets its name at the end is made */
export function assertNoDataFile(settings: Settings): void {
  if (settings['data_file'] === undefined && settings['data_file_raw'] === undefined) return;
  throw new UsageError(
    "-o data_file: 'downfold create' makes an image with an external data file; copy into it with -n and --allow-data-file",
  );
}

/** What `-o` can say, or these of it, as a table. */
export function settingsHelp(format: string, names?: readonly string[]): string {
  const rows = Object.entries(SETTINGS[format] ?? {})
    .filter(([name]) => names?.includes(name) !== false)
    .map(([name, { about, choices }]) => [
      `  ${name}=${choices === undefined ? '...' : choices.join('|')}`,
      about,
    ]);
  return `Supported options:\n${table(rows)}`;
}
