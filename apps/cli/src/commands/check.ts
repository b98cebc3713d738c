import { Option } from 'commander';
import type { Register } from '../command.ts';
import {
  allow,
  allowDataFile,
  forceShare,
  format,
  imageOpts,
  object,
  output,
  quiet,
  secret,
  sourceCache,
} from '../options.ts';

const EXAMPLES = `Examples:
  downfold check disk.qcow2; echo $?
  downfold check --output json disk.qcow2
  downfold check -r all disk.qcow2
`;

/** Declares `downfold check`. */
export const check: Register = (program, act) => {
  program
    .command('check')
    .description('verify the metadata of one image, and repair it with -r')
    .argument('<file>')
    .addOption(format())
    .addOption(secret())
    .addOption(object())
    .addOption(imageOpts())
    .addOption(output('json'))
    .addOption(
      new Option(
        '-r, --repair <what>',
        'leaks: lower refcounts that are too high; all: put right what can be',
      ).choices(['leaks', 'all']),
    )
    .addOption(quiet())
    .addOption(sourceCache())
    .addOption(forceShare())
    .addOption(allow())
    .addOption(allowDataFile())
    .addHelpText('before', EXAMPLES)
    .action((file: string, options) =>
      act({ doing: `check '${file}'` }, async () =>
        (await import('../actions/check.ts')).check(file, options),
      ),
    );
};
