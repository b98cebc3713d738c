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
  progress,
  quiet,
  secret,
  sourceCache,
} from '../options.ts';

const EXAMPLES = `Examples:
  downfold compare before.qcow2 after.qcow2
  downfold compare -F raw disk.qcow2 disk.img
`;

/** Declares `downfold compare`. */
export const compare: Register = (program, act) => {
  program
    .command('compare')
    .description('whether two images show the same disk')
    .argument('<first>')
    .argument('<second>')
    .addOption(format())
    .option('-F, --second-format <name>', 'format of the second image', 'qcow2')
    .option('-s, --strict', 'sizes and allocation must be the same too')
    .addOption(output('json'))
    .addOption(progress())
    .addOption(quiet())
    .addOption(sourceCache())
    .addOption(allow())
    .addOption(secret())
    .addOption(object())
    .addOption(imageOpts())
    .addOption(allowDataFile())
    .addOption(forceInvalid())
    .addOption(forceShare())
    .addHelpText('before', EXAMPLES)
    .action((first: string, second: string, options) =>
      act({ doing: `compare '${first}' with '${second}'`, failed: 2 }, async () =>
        (await import('../actions/compare.ts')).compare(first, second, options),
      ),
    );
};
