import type { Register } from '../command.ts';
import { allow, allowDataFile, format, imageOpts, lock, object, secret } from '../options.ts';

const EXAMPLES = `Examples:
  downfold bitmap --add disk.qcow2 since-monday
  downfold bitmap --add --disable --merge since-monday disk.qcow2 copy
  downfold bitmap --merge old -b other.qcow2 -F qcow2 disk.qcow2 since-monday
`;

/** Declares `downfold bitmap`. */
export const bitmap: Register = (program, act) => {
  // in the order in which they were given, which commander does not tell
  const deeds: { readonly name: string; readonly source: string }[] = [];
  const command = program
    .command('bitmap')
    .description('persistent dirty bitmaps of an image; what is done is done in the order given')
    .argument('<file>')
    .argument('<bitmap>')
    .addOption(format())
    .option('--add', 'a new bitmap, which records what is written from now on')
    .option('--remove', 'it is gone')
    .option('--clear', 'nothing has changed')
    .option('--enable', 'it records from now on')
    .option('--disable', 'it does not record any more')
    .option('--merge <source>', 'what another one says is added')
    .option('-b, --source-file <file>', 'the image that has the bitmaps to merge')
    .option('-F, --source-format <name>', 'its format; not guessed', 'qcow2')
    .option('-g, --granularity <bytes>', 'with --add: what one bit stands for')
    .addOption(allow())
    .addOption(secret())
    .addOption(object())
    .addOption(imageOpts())
    .addOption(allowDataFile())
    .addOption(lock())
    .addHelpText('before', EXAMPLES)
    .action((file: string, name: string, options) =>
      act({ doing: `change bitmap '${name}' of '${file}'` }, async () =>
        (await import('../actions/bitmap.ts')).bitmap(file, name, deeds, options),
      ),
    );
  for (const deed of ['add', 'remove', 'clear', 'enable', 'disable', 'merge'])
    command.on(`option:${deed}`, (source: unknown) => {
      deeds.push({ name: deed, source: typeof source === 'string' ? source : '' });
    });
};
