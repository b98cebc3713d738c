import type { Register } from '../command.ts';
import {
  allow,
  allowDataFile,
  collect,
  forceInvalid,
  forceShare,
  format,
  imageOpts,
  object,
  output,
  secret,
} from '../options.ts';

const EXAMPLES = `Examples:
  downfold measure -O qcow2 disk.img -f raw      how large a conversion of it may become
  downfold measure -O qcow2 --size 10G           a new image
  downfold measure --commit -b base.qcow2 --top mid.qcow2 disk.qcow2
                                                 how large base may become by this commit
`;

/** Declares `downfold measure`. */
export const measure: Register = (program, act) => {
  program
    .command('measure')
    .description('how large a file may become: a new image, or the base of a commit')
    .argument('[file]')
    .addOption(format())
    .option('-O, --target-format <name>', "format of the new image; as qemu-img's", 'raw')
    .option('-o, --option <key=value,...>', 'settings of the new image', collect)
    .option('--size <bytes>', 'of a new image')
    .option('-l, --snapshot <which>', 'an internal snapshot of the image')
    .option('--commit', 'of the base of a commit, instead of a new image')
    .option('-b, --base <image>', 'with --commit: as of commit')
    .option('--top <image>', 'with --commit: as of commit')
    .addOption(output('json'))
    .addOption(allow())
    .addOption(secret())
    .addOption(object())
    .addOption(imageOpts())
    .addOption(allowDataFile())
    .addOption(forceInvalid())
    .addOption(forceShare())
    .addHelpText('before', EXAMPLES)
    .action((file: string | undefined, options) =>
      act({ doing: file === undefined ? 'measure' : `measure '${file}'` }, async () =>
        (await import('../actions/measure.ts')).measure(file, options),
      ),
    );
};
