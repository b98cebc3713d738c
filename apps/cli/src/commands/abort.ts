import type { Register } from '../command.ts';
import { allow, allowDataFile, lock, output, quiet, secret } from '../options.ts';

const EXAMPLES = `Examples:
  downfold abort disk.qcow2            staged: as if it had never begun; else base is marked
                                       as a mixture, and disk and top read as before
`;

/** Declares `downfold abort`. */
export const abort: Register = (program, act) => {
  program
    .command('abort')
    .description('give up the interrupted job whose journal lies beside FILE')
    .argument('<file>', 'the image that was given to the job')
    .addOption(output('json'))
    .addOption(quiet())
    .addOption(allow())
    .addOption(secret())
    .addOption(allowDataFile())
    .addOption(lock())
    .addHelpText('before', EXAMPLES)
    .action((file: string, options) =>
      act({ doing: `give up the job of '${file}'` }, async () =>
        (await import('../actions/abort.ts')).abort(file, options),
      ),
    );
};
