import type { Register } from '../command.ts';
import {
  allow,
  allowDataFile,
  lock,
  onError,
  output,
  progress,
  quiet,
  rate,
  secret,
  verify,
} from '../options.ts';

const EXAMPLES = `Examples:
  downfold resume disk.qcow2           copies nothing twice that a checkpoint covers
`;

/** Declares `downfold resume`. */
export const resume: Register = (program, act) => {
  program
    .command('resume')
    .description('go on with the interrupted job whose journal lies beside FILE')
    .argument('<file>', 'the image that was given to the job')
    .addOption(verify())
    .addOption(onError())
    .option(
      '--after-failed-flush',
      'a flush failed, and the file system was mounted anew since: go on',
    )
    .option('--delete', 'delete images of the chain that are no longer valid')
    .addOption(rate())
    .addOption(output('json'))
    .addOption(progress())
    .addOption(quiet())
    .addOption(allow())
    .addOption(secret())
    .addOption(allowDataFile())
    .addOption(lock())
    .addHelpText('before', EXAMPLES)
    .action((file: string, options) =>
      act({ doing: `resume the job of '${file}'` }, async () =>
        (await import('../actions/resume.ts')).resume(file, options),
      ),
    );
};
