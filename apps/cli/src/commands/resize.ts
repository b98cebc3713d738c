import { Option } from 'commander';
import type { Register } from '../command.ts';
import {
  allow,
  allowDataFile,
  format,
  imageOpts,
  lock,
  object,
  output,
  quiet,
  secret,
} from '../options.ts';

const EXAMPLES = `Examples:
  downfold resize disk.qcow2 20G
  downfold resize disk.qcow2 +5G
  downfold resize --shrink disk.qcow2 -5G        what lay past the new end is lost
`;

/** Declares `downfold resize`. */
export const resize: Register = (program, act) => {
  program
    .command('resize')
    .description('give the disk another size')
    .argument('<file>')
    .argument('<size>', 'bytes, or with a suffix k, M, G, T; + and - change the present size')
    .addOption(format())
    .option('--shrink', 'what lies past the new end may be lost')
    .addOption(
      new Option('--preallocation <mode>', 'of what is added')
        .choices(['off', 'metadata', 'falloc', 'full'])
        .default('off'),
    )
    .addOption(output('json'))
    .addOption(quiet())
    .addOption(allow())
    .addOption(secret())
    .addOption(object())
    .addOption(imageOpts())
    .addOption(allowDataFile())
    .addOption(lock())
    .addHelpText('before', EXAMPLES)
    .action((file: string, size: string, options) =>
      act({ doing: `resize '${file}'` }, async () =>
        (await import('../actions/resize.ts')).resize(file, size, options),
      ),
    );
};
