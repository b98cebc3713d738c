import type { Register } from '../command.ts';
import { forceShare, format, output, quiet, sourceCache } from '../options.ts';

const EXAMPLES = `Examples:
  downfold check disk.qcow2; echo $?
  downfold check --output json disk.qcow2
`;

/** Declares `downfold check`. */
export const check: Register = (program, act) => {
  program
    .command('check')
    .description('verify the metadata of one image; never writes')
    .argument('<file>')
    .addOption(format())
    .addOption(output('json'))
    .option('-r, --repair <what>', 'not there yet')
    .addOption(quiet())
    .addOption(sourceCache())
    .addOption(forceShare())
    .addHelpText('before', EXAMPLES)
    .action((file: string, options) =>
      act({ doing: `check '${file}'` }, async () =>
        (await import('../actions/check.ts')).check(file, options),
      ),
    );
};
