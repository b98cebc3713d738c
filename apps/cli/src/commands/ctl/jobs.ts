import type { Command } from 'commander';
import type { Register } from '../../command.ts';

/** Declares `downfold ctl pause`. */
export const pause: Register = (ctl, act) => {
  ctl
    .command('pause')
    .description('a job stands still at its next piece')
    .argument('<id>', "as 'jobs' shows it")
    .addHelpText('before', 'Examples:\n  downfold ctl pause commit-disk\n')
    .action((id: string, _: object, command: Command) =>
      act({ doing: `pause '${id}'` }, async () =>
        (await import('../../actions/ctl/verbs.ts')).pause(id, command.optsWithGlobals()),
      ),
    );
};

/** Declares `downfold ctl resume`. */
export const resume: Register = (ctl, act) => {
  ctl
    .command('resume')
    .description('a job goes on that was paused, or that an error has stopped')
    .argument('<id>', "as 'jobs' shows it")
    .addHelpText('before', 'Examples:\n  downfold ctl resume commit-disk\n')
    .action((id: string, _: object, command: Command) =>
      act({ doing: `resume '${id}'` }, async () =>
        (await import('../../actions/ctl/verbs.ts')).resume(id, command.optsWithGlobals()),
      ),
    );
};

/** Declares `downfold ctl speed`. */
export const speed: Register = (ctl, act) => {
  ctl
    .command('speed')
    .description('limit how fast a job copies')
    .argument('<id>', "as 'jobs' shows it")
    .argument('<rate>', 'bytes a second, such as 10M; 0: no limit')
    .addHelpText(
      'before',
      'Examples:\n  downfold ctl speed commit-disk 10M\n  downfold ctl speed commit-disk 0\n',
    )
    .action((id: string, rate: string, _: object, command: Command) =>
      act({ doing: `limit '${id}'` }, async () =>
        (await import('../../actions/ctl/verbs.ts')).speed(id, rate, command.optsWithGlobals()),
      ),
    );
};

/** Declares `downfold ctl dismiss`. */
export const dismiss: Register = (ctl, act) => {
  ctl
    .command('dismiss')
    .description('forget a job that has ended, and was started with --no-auto-dismiss')
    .argument('<id>', "as 'jobs' shows it")
    .addHelpText('before', 'Examples:\n  downfold ctl dismiss commit-disk\n')
    .action((id: string, _: object, command: Command) =>
      act({ doing: `dismiss '${id}'` }, async () =>
        (await import('../../actions/ctl/verbs.ts')).dismiss(id, command.optsWithGlobals()),
      ),
    );
};
