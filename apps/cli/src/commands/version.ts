import type { Register } from '../command.ts';
import { output } from '../options.ts';

/** Declares `downfold version`. */
export const version: Register = (program, act) => {
  program
    .command('version')
    .description('print the version')
    .addOption(output('json'))
    .action((options) =>
      act({ doing: 'tell the version' }, async () =>
        (await import('../actions/version.ts')).version(options),
      ),
    );
};
