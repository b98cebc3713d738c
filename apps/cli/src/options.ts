import { InvalidArgumentError, Option } from 'commander';
import { ON_ERROR } from './on-error.ts';
import { secretObject, secretOption } from './secrets.ts';

/** Collects the values of an option that may be given more than once. */
export const collect = (value: string, before: readonly string[] = []): readonly string[] => [
  ...before,
  value,
];

/** The value of an option that may be given once: another one would not be done, and nothing would say so. */
export const once = (value: string, before?: string): string => {
  if (before !== undefined) throw new InvalidArgumentError('It is said twice.');
  return value;
};

/** `--output FORM`, human by default. */
export const output = (...others: readonly string[]): Option =>
  new Option('--output <form>', 'form of the result')
    .choices(['human', ...others])
    .default('human');

/** `-f FORMAT`: said, never guessed. */
export const format = (): Option =>
  new Option('-f, --format <name>', 'format of the image').default('qcow2');

/** `--allow DIR`, repeatable. */
export const allow = (): Option =>
  new Option(
    '--allow <dir>',
    'backing files may also lie in this directory, or be this URL (repeatable)',
  ).argParser(collect);

/** `--secret FILE`, repeatable. */
export const secret = (): Option =>
  new Option(
    '--secret <[image=]file>',
    'the file that holds the passphrase of encrypted images, or of this one (repeatable)',
  ).argParser(secretOption);

/** `--object`, of which qemu-img's secrets are taken. */
export const object = (): Option =>
  new Option(
    '--object <secret,id=ID,file=FILE>',
    'a passphrase in a file, by the name that other options call it; format=base64 too (repeatable)',
  ).argParser(secretObject);

/** `--image-opts`. */
export const imageOpts = (): Option =>
  new Option(
    '--image-opts',
    'images are named by driver=FORMAT,file.filename=FILE,encrypt.key-secret=ID (of luks: key-secret=ID)',
  );

/** `--allow-data-file`. */
export const allowDataFile = (): Option =>
  new Option(
    '--allow-data-file',
    'open the external data files that images name, where backing files may lie',
  );

/** `--force-invalid`. */
export const forceInvalid = (): Option =>
  new Option('--force-invalid', 'open images marked invalid');

/** `-U`, as qemu-img has it. */
export const forceShare = (): Option =>
  new Option(
    '-U, --force-share',
    'read what others may be writing; what is shown may not fit together',
  );

/** `--lock HOW`, of jobs. */
export const lock = (): Option =>
  new Option(
    '--lock <how>',
    "QEMU's locks on every image: auto refuses on network file systems, where they may exclude nobody; ofd takes them there too; none",
  )
    .env('DOWNFOLD_LOCK')
    .choices(['auto', 'ofd', 'none'])
    .default('auto');

/** `-p`. */
export const progress = (): Option => new Option('-p, --progress', 'show progress');

/** `-q`. */
export const quiet = (): Option => new Option('-q, --quiet', 'print only errors');

/** `--dry-run`. */
export const dryRun = (): Option =>
  new Option('--dry-run', 'print the plan; write nothing').default(false);

/** `--plan-out FILE`. */
export const planOut = (): Option =>
  new Option('--plan-out <file>', "write the plan to a new file, for 'commit --plan'; do nothing");

/** `--pool DIR`, repeatable. */
export const pool = (): Option =>
  new Option(
    '--pool <dir>',
    'look here too for images that depend on the chain (repeatable)',
  ).argParser(collect);

/** `--on-error`, QEMU's words and one more. */
export const onError = (): Option =>
  new Option(
    '--on-error <policy>',
    'after a failed read or write: report (end), stop (wait for you), retry (by itself)',
  )
    .choices(ON_ERROR)
    .default('report');

/** QEMU's cache modes. */
const CACHE_MODES = ['none', 'off', 'writeback', 'writethrough', 'directsync', 'unsafe'];

/** `-t`: taken, so that scripts need no change. */
export const cache = (): Option =>
  new Option(
    '-t, --cache <mode>',
    "taken as qemu-img's: in every mode it is written through the page cache, and durable at the end",
  )
    .choices(CACHE_MODES)
    .default('writeback');

/** `-T`: taken, so that scripts need no change. */
export const sourceCache = (): Option =>
  new Option(
    '-T, --source-cache <mode>',
    "taken as qemu-img's: in every mode it is read through the page cache",
  )
    .choices(CACHE_MODES)
    .default('writeback');

/** `--verify`, of jobs. */
export const verify = (): Option =>
  new Option('--verify', 'read back and compare before anything is relinked or let go');

/** `-r RATE`, of jobs. */
export const rate = (): Option =>
  new Option('-r, --rate <bytes>', 'copy no faster than this a second, such as 10M');
