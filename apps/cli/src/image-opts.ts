import type { GivenSecret } from '@downfold/host';
import type { Command } from 'commander';
import { UsageError } from './failure.ts';
import { keyedParts } from './keyed-parts.ts';
import { absolute } from './paths.ts';
import { type NamedSecret, secretCalled } from './secrets.ts';

/** What `--image-opts` says of one image. */
interface ImageOpts {
  readonly driver: string;
  readonly file: string;
  readonly keySecret: string | null;
}

/** Of each command the options that have the formats of its images, the last one for all that follow. Of `convert` the last image is the target. */
const FORMATS: Readonly<Record<string, readonly string[]>> = {
  compare: ['format', 'secondFormat'],
};

/**
 * Where `--image-opts` is given: reads the images' names as qemu-img does, and puts the name of the file, its format and its secret where the command
 * looks for them. @throws UsageError for what is not taken
 */
export function applyImageOpts(command: Command): void {
  if (command.opts()['imageOpts'] !== true) return;
  if (command.name() === 'dd') {
    applyToOperands(command);
    return;
  }
  const [first, ...others] = command.processedArgs as readonly unknown[];
  const several = Array.isArray(first);
  const named = (several ? first.slice(0, -1) : imagesOf(command, first, others)) as string[];
  const all = named.map(imageOpts);
  const files = all.map(({ file }) => file);
  command.processedArgs = several
    ? [[...files, first.at(-1)], ...others]
    : [...files, ...[first, ...others].slice(files.length)];
  const keys = FORMATS[command.name()] ?? ['format'];
  for (const [index, { driver }] of all.entries()) {
    const key = keys[Math.min(index, keys.length - 1)] as string;
    if (index >= keys.length && command.getOptionValue(key) !== driver)
      throw new UsageError('--image-opts: all sources must be of one format');
    command.setOptionValue(key, driver);
  }
  command.setOptionValue('secret', [...secretsOf(command, all), ...given(command)]);
}

/** `dd` names its image in `if=`. */
function applyToOperands(command: Command): void {
  const [words] = command.processedArgs as [readonly string[]];
  const at = words.findIndex((word) => word.startsWith('if='));
  if (at < 0) return;
  const input = imageOpts((words[at] as string).slice('if='.length));
  command.processedArgs = [words.with(at, `if=${input.file}`)];
  command.setOptionValue('format', input.driver);
  command.setOptionValue('secret', [...secretsOf(command, [input]), ...given(command)]);
}

/** Arguments that name images: two of `compare`, the first one of others. */
function imagesOf(
  command: Command,
  first: unknown,
  others: readonly unknown[],
): readonly unknown[] {
  const all = command.name() === 'compare' ? [first, ...others] : [first];
  return all.filter((one) => typeof one === 'string');
}

function given(command: Command): readonly GivenSecret[] {
  return (command.getOptionValue('secret') ?? []) as readonly GivenSecret[];
}

function secretsOf(command: Command, all: readonly ImageOpts[]): readonly GivenSecret[] {
  const objects = command.getOptionValue('object') as readonly NamedSecret[] | undefined;
  return all.flatMap(({ file, keySecret }) =>
    keySecret === null ? [] : [{ image: absolute(file), secret: secretCalled(keySecret, objects) }],
  );
}

const TAKEN: readonly string[] = [
  'driver',
  'file.driver',
  'file.filename',
  'encrypt.format',
  'encrypt.key-secret',
  'key-secret',
];

function imageOpts(text: string): ImageOpts {
  const said = Object.fromEntries(keyedParts(text));
  const unknown = Object.keys(said).find((key) => !TAKEN.includes(key));
  if (unknown !== undefined)
    throw new UsageError(`--image-opts: '${unknown}' is not taken; ${TAKEN.join(', ')} are`);
  const { driver, 'file.driver': protocol = 'file', 'file.filename': file } = said;
  if (driver === undefined || file === undefined)
    throw new UsageError('--image-opts: needs driver=FORMAT and file.filename=FILE');
  if (protocol !== 'file')
    throw new UsageError(`--image-opts: file.driver=${protocol} is not taken`);
  if ((said['encrypt.format'] ?? 'luks') !== 'luks')
    throw new UsageError('--image-opts: encrypt.format can be luks');
  return { driver, file, keySecret: said['encrypt.key-secret'] ?? said['key-secret'] ?? null };
}
