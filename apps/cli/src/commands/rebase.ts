import { Option } from 'commander';
import type { Register } from '../command.ts';
import {
  allow,
  allowDataFile,
  cache,
  dryRun,
  format,
  imageOpts,
  lock,
  object,
  onError,
  output,
  planOut,
  progress,
  quiet,
  rate,
  secret,
  sourceCache,
  verify,
} from '../options.ts';

const EXAMPLES = `Examples:
  downfold rebase -b new.qcow2 -F qcow2 disk.qcow2    disk reads the same over another backing file
  downfold rebase -b "" disk.qcow2                    disk stands alone
  downfold rebase -u -b moved/base.qcow2 -F qcow2 disk.qcow2
                                                      only the name changes: the file was moved
`;

/** Declares `downfold rebase`. */
export const rebase: Register = (program, act) => {
  program
    .command('rebase')
    .description('give an image another backing file; where that reads differently, copy first')
    .argument('<file>', 'the image that is relinked')
    .addOption(format())
    .option('-b, --backing <name>', "the new backing file; '' for none, as with -u alone")
    .addOption(new Option('-F, --backing-format <name>', 'its format; not guessed'))
    .option('-u, --unsafe', 'trust that it shows the same disk: change the reference only')
    .addOption(dryRun())
    .addOption(planOut())
    .addOption(verify())
    .addOption(onError())
    .addOption(rate())
    .addOption(cache())
    .addOption(output('json'))
    .addOption(progress())
    .addOption(quiet())
    .addOption(sourceCache())
    .addOption(allow())
    .addOption(secret())
    .addOption(object())
    .addOption(imageOpts())
    .addOption(allowDataFile())
    .addOption(lock())
    .option('-U, --force-share', 'accepted; what is written is locked all the same')
    .addHelpText('before', EXAMPLES)
    .action((file: string, options) =>
      act({ doing: `rebase '${file}'` }, async () =>
        (await import('../actions/rebase.ts')).rebase(file, options),
      ),
    );
};
