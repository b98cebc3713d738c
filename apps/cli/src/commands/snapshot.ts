import type { Register } from '../command.ts';
import {
  allow,
  allowDataFile,
  forceShare,
  format,
  imageOpts,
  lock,
  object,
  once,
  output,
  quiet,
  secret,
} from '../options.ts';

const EXAMPLES = `Examples:
  downfold snapshot -l disk.qcow2
  downfold snapshot -c before-upgrade disk.qcow2
  downfold snapshot -a before-upgrade disk.qcow2    the disk is what it was then
`;

/** Declares `downfold snapshot`. */
export const snapshot: Register = (program, act) => {
  program
    .command('snapshot')
    .description('internal snapshots of an image: list, take, apply, delete')
    .argument('<file>')
    .addOption(format())
    .option('-l, --list', 'list them; the default')
    .option('-c, --create <name>', 'keep what the disk shows now', once)
    .option('-a, --apply <which>', 'the disk becomes what it was; ID or name', once)
    .option('-d, --delete <which>', 'name, or ID that is no name', once)
    .addOption(output('json'))
    .addOption(quiet())
    .addOption(allow())
    .addOption(secret())
    .addOption(object())
    .addOption(imageOpts())
    .addOption(allowDataFile())
    .addOption(lock())
    .addOption(forceShare())
    .addHelpText('before', EXAMPLES)
    .action((file: string, options) =>
      act({ doing: `handle the snapshots of '${file}'` }, async () =>
        (await import('../actions/snapshot.ts')).snapshot(file, options),
      ),
    );
};
