import type { Register } from '../command.ts';
import {
  allow,
  allowDataFile,
  forceInvalid,
  forceShare,
  format,
  imageOpts,
  object,
  output,
  secret,
} from '../options.ts';

const EXAMPLES = `Examples:
  downfold map disk.qcow2
  downfold map --output json --start-offset 1G --max-length 64M disk.qcow2
`;

/** Declares `downfold map`. */
export const map: Register = (program, act) => {
  program
    .command('map')
    .description('which image each part of the disk comes from')
    .argument('<file>')
    .addOption(format())
    .addOption(output('json'))
    .option('-s, --start-offset <bytes>', 'start here')
    .option('-l, --max-length <bytes>', 'and look at no more than this')
    .addOption(allow())
    .addOption(secret())
    .addOption(object())
    .addOption(imageOpts())
    .addOption(allowDataFile())
    .addOption(forceInvalid())
    .addOption(forceShare())
    .addHelpText('before', EXAMPLES)
    .action((file: string, options) =>
      act({ doing: `map '${file}'` }, async () =>
        (await import('../actions/map.ts')).map(file, options),
      ),
    );
};
