import type { Register } from '../command.ts';
import {
  allow,
  allowDataFile,
  cache,
  collect,
  format,
  imageOpts,
  lock,
  object,
  output,
  progress,
  quiet,
  secret,
} from '../options.ts';

const EXAMPLES = `Examples:
  downfold amend -o compat=1.1,lazy_refcounts=on disk.qcow2
  downfold amend -o compat=0.10 disk.qcow2       zeros become data, which version 2 can have
`;

/** Declares `downfold amend`. */
export const amend: Register = (program, act) => {
  program
    .command('amend')
    .description('change options that a qcow2 image was created with')
    .argument('[file]', "not needed with '-o help'")
    .addOption(format())
    .requiredOption(
      '-o, --option <key=value,...>',
      'compat, data_file_raw, lazy_refcounts, refcount_bits, size',
      collect,
    )
    .option('--force', 'taken, without effect')
    .addOption(cache())
    .addOption(output('json'))
    .addOption(progress())
    .addOption(quiet())
    .addOption(allow())
    .addOption(secret())
    .addOption(object())
    .addOption(imageOpts())
    .addOption(allowDataFile())
    .addOption(lock())
    .addHelpText('before', EXAMPLES)
    .action((file: string | undefined, options) =>
      act({ doing: `amend '${file}'` }, async () =>
        (await import('../actions/amend.ts')).amend(file, options),
      ),
    );
};
