import { type Command, Option } from 'commander';
import type { Register } from '../../command.ts';
import { STRATEGIES } from '../../later.ts';
import { progress } from '../../options.ts';
import {
  backingFile,
  jobId,
  noAutoDismiss,
  noAutoFinalize,
  onServerError,
  orCancel,
  plan,
  speedLimit,
  waiting,
} from './options.ts';

/** Declares `downfold ctl commit`. */
export const commit: Register = (ctl, act) => {
  ctl
    .command('commit')
    .description('fold layers of a disk down into one another, while it is in use')
    .argument('<disk>', "its active layer: node as 'nodes' shows it, or file")
    .option('--top <layer>', 'uppermost layer that is committed; default: the active layer')
    .addOption(
      new Option('--base <layer>', 'receives the data; default: the lowest layer').conflicts(
        'shallow',
      ),
    )
    .option('--shallow', "into top's own backing file")
    .addOption(
      new Option('--strategy <name>', "how; downfoldd's, and not of the active layer").choices([
        ...STRATEGIES,
        'auto',
      ]),
    )
    .addOption(
      new Option(
        '--siblings <what>',
        "other images that would read something else: refuse (default), invalidate, keep; downfoldd's",
      ).choices(['refuse', 'invalidate', 'keep']),
    )
    .addOption(plan())
    .option('--pivot', 'of the active layer: wait; when it is ready, base becomes the disk')
    .addOption(
      new Option(
        '--keep',
        'of the active layer: wait; when it is ready, base stays a copy of that moment',
      ).conflicts('pivot'),
    )
    .addOption(waiting())
    .addOption(orCancel())
    .addOption(progress())
    .addOption(speedLimit())
    .addOption(onServerError())
    .addOption(backingFile())
    .addOption(jobId('commit-DISK'))
    .addOption(noAutoFinalize())
    .addOption(noAutoDismiss())
    .addHelpText(
      'before',
      `Examples:
  downfold ctl commit disk --top mid.qcow2 --wait     mid and all below it into the lowest layer
  downfold ctl commit disk --top mid.qcow2 --shallow  only into the next one
  downfold ctl commit disk --wait                     until ready; 'complete' ends it
  downfold ctl commit disk --pivot                    the same, and base becomes the disk
  downfold ctl commit disk --keep                     the disk stays, base becomes a copy
`,
    )
    .action((disk: string, _: object, command: Command) =>
      act({ doing: `commit '${disk}'` }, async () =>
        (await import('../../actions/ctl/start.ts')).commit(disk, command.optsWithGlobals()),
      ),
    );
};

/** Declares `downfold ctl stream`. */
export const stream: Register = (ctl, act) => {
  ctl
    .command('stream')
    .description('pull data up into the active layer of a disk, while it is in use')
    .argument('<disk>', "its active layer: node as 'nodes' shows it, or file")
    .option('--base <layer>', 'the layer that DISK then stands on; default: none')
    .addOption(plan())
    .addOption(waiting())
    .addOption(orCancel())
    .addOption(progress())
    .addOption(speedLimit())
    .addOption(onServerError())
    .addOption(backingFile())
    .addOption(jobId('stream-DISK'))
    .addOption(noAutoFinalize())
    .addOption(noAutoDismiss())
    .addHelpText(
      'before',
      `Examples:
  downfold ctl stream disk --wait                     everything; disk stands alone then
  downfold ctl stream disk --base base.qcow2 --wait   what lies between; disk stands on base
`,
    )
    .action((disk: string, _: object, command: Command) =>
      act({ doing: `stream into '${disk}'` }, async () =>
        (await import('../../actions/ctl/start.ts')).stream(disk, command.optsWithGlobals()),
      ),
    );
};

/** Declares `downfold ctl snapshot`. */
export const snapshot: Register = (ctl, act) => {
  ctl
    .command('snapshot')
    .description('put a new, empty layer on top of a disk: what is below stays as it is now')
    .argument('<disk>', "its active layer: node as 'nodes' shows it, or file")
    .argument('<file>', 'the new active layer, which is made')
    .option('--node <name>', "its node; default: the file's name without the ending")
    .option('--existing', 'the file is there already, and names the disk as its backing file')
    .addHelpText('before', 'Examples:\n  downfold ctl snapshot disk /vm/tuesday.qcow2\n')
    .action((disk: string, file: string, _: object, command: Command) =>
      act({ doing: `take a snapshot of '${disk}'` }, async () =>
        (await import('../../actions/ctl/snapshot.ts')).snapshot(
          disk,
          file,
          command.optsWithGlobals(),
        ),
      ),
    );
};
