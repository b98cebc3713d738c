import { Option } from 'commander';
import type { Register } from '../command.ts';
import { STRATEGIES } from '../later.ts';
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
  pool,
  progress,
  quiet,
  rate,
  secret,
  verify,
} from '../options.ts';

const EXAMPLES = `Examples:
  downfold commit disk.qcow2                     disk into its backing file; disk is emptied
  downfold commit -d disk.qcow2                  the same, disk keeps its data
  downfold commit -b base.qcow2 --top mid.qcow2 disk.qcow2
                                                 mid and all between into base; disk goes on
                                                 on top of base, and so does mid
  downfold commit --dry-run --strategy auto -b base.qcow2 --top mid.qcow2 disk.qcow2
                                                 what each strategy would cost
  downfold commit --plan-out plan.json -b base.qcow2 --top mid.qcow2 disk.qcow2
  downfold commit --plan plan.json disk.qcow2    do what was reviewed, or nothing
`;

const STRATEGIES_HELP = `
Strategies; top and whatever reads through it read the same at every moment in all of them:
  copy-down    what top shows goes to base; the cheapest, and the default
  depth-first  layer after layer from the bottom; gives host space back as it goes
  preserve     what base loses first goes to whoever reads it: only base changes
  staged       written aside, published by one write; until then 'abort' undoes all
  auto         plans with each, takes the cheapest that harms nobody, and says why
`;

/** Declares `downfold commit`. */
export const commit: Register = (program, act) => {
  program
    .command('commit')
    .description('fold layers of a chain down into one another')
    .argument('<file>', 'the leaf of the chain')
    .addOption(format())
    .option('-b, --base <image>', "receives the data; default: top's backing file")
    .option('--top <image>', 'uppermost image that is committed; default: FILE')
    .addOption(
      new Option(
        '--strategy <name>',
        'how; default: copy-down, with --keep-siblings preserve',
      ).choices([...STRATEGIES, 'auto']),
    )
    .option('-d, --drop', 'do not empty FILE afterwards; -b implies it')
    .addOption(dryRun())
    .addOption(planOut())
    .option('--plan <file>', 'do exactly what this plan says, or refuse')
    .addOption(verify())
    .addOption(onError())
    .addOption(pool())
    .addOption(
      new Option('--keep-siblings', 'keep what other overlays of the chain read').conflicts(
        'invalidateSiblings',
      ),
    )
    .option('--invalidate-siblings', 'accept that other overlays of the chain lose their meaning')
    .option(
      '--ignore-unreadable',
      'go on although it cannot be told whether other images depend on the chain',
    )
    .option('--keep-undo', 'staged: keep the old content of base as an internal snapshot')
    .addOption(
      new Option(
        '--bitmaps <mode>',
        'persistent dirty bitmaps: keep has those of base record what is written; merge adds to them what the layers say; drop removes them from base (default: keep)',
      ).choices(['keep', 'merge', 'drop']),
    )
    .option('--delete', 'delete images of the chain that are no longer valid')
    .addOption(rate())
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
    .addHelpText('after', STRATEGIES_HELP)
    .action((file: string, options) =>
      act({ doing: `commit '${file}'` }, async () =>
        (await import('../actions/commit.ts')).commit(file, options),
      ),
    );
};
