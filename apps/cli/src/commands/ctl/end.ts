import { type Command, Option } from 'commander';
import type { Register } from '../../command.ts';
import { progress } from '../../options.ts';
import { orCancel, waiting } from './options.ts';

/** Declares `downfold ctl wait`. */
export const wait: Register = (ctl, act) => {
  ctl
    .command('wait')
    .description('wait until a job has ended, or waits for you: ready, or pending')
    .argument('<id>', "as 'jobs' shows it")
    .addOption(orCancel())
    .addOption(progress())
    .addHelpText(
      'before',
      `Examples:
  downfold ctl wait commit-disk
  downfold ctl wait commit-disk --timeout 600 --or-cancel
`,
    )
    .action((id: string, _: object, command: Command) =>
      act({ doing: `wait for '${id}'` }, async () =>
        (await import('../../actions/ctl/verbs.ts')).wait(id, command.optsWithGlobals()),
      ),
    );
};

/** Declares `downfold ctl complete`. */
export const complete: Register = (ctl, act) => {
  ctl
    .command('complete')
    .description('end the commit of an active layer that is ready')
    .argument('<id>', "as 'jobs' shows it")
    .option(
      '--pivot',
      'base becomes the disk; what was the active layer is no longer used (default)',
    )
    .addOption(
      new Option(
        '--keep',
        'the disk stays where it is, base is a copy of it at this moment',
      ).conflicts('pivot'),
    )
    .addOption(waiting('also until it is ready'))
    .addOption(orCancel())
    .addOption(progress())
    .addHelpText(
      'before',
      `Examples:
  downfold ctl complete commit-disk
  downfold ctl complete commit-disk --keep --wait
`,
    )
    .action((id: string, _: object, command: Command) =>
      act({ doing: `complete '${id}'` }, async () =>
        (await import('../../actions/ctl/verbs.ts')).complete(id, command.optsWithGlobals()),
      ),
    );
};

/** Declares `downfold ctl cancel`. */
export const cancel: Register = (ctl, act) => {
  ctl
    .command('cancel')
    .description("give a job up; one that is ready ends as by 'complete --keep', unless --force")
    .argument('<id>', "as 'jobs' shows it")
    .option('--force', 'give up one that is ready too: at once, and base is a copy of no moment')
    .addOption(waiting('until it is gone'))
    .addOption(progress())
    .addHelpText('before', 'Examples:\n  downfold ctl cancel commit-disk --wait\n')
    .action((id: string, _: object, command: Command) =>
      act({ doing: `cancel '${id}'` }, async () =>
        (await import('../../actions/ctl/verbs.ts')).cancel(id, command.optsWithGlobals()),
      ),
    );
};

/** Declares `downfold ctl finalize`. */
export const finalize: Register = (ctl, act) => {
  ctl
    .command('finalize')
    .description('a job that is pending, by --no-auto-finalize, switches what others see')
    .argument('<id>', "as 'jobs' shows it")
    .addOption(waiting())
    .addOption(progress())
    .addHelpText('before', 'Examples:\n  downfold ctl finalize commit-disk --wait\n')
    .action((id: string, _: object, command: Command) =>
      act({ doing: `finalize '${id}'` }, async () =>
        (await import('../../actions/ctl/verbs.ts')).finalize(id, command.optsWithGlobals()),
      ),
    );
};
