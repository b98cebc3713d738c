import type { Register } from '../command.ts';
import {
  allow,
  allowDataFile,
  dryRun,
  format,
  lock,
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
  downfold stream disk.qcow2                     pull everything into disk; it stands alone
  downfold stream -b base.qcow2 disk.qcow2       pull what lies between; disk goes on on base
`;

/** Declares `downfold stream`. */
export const stream: Register = (program, act) => {
  program
    .command('stream')
    .description('pull data up into an image, then relink it; all other images stay as they are')
    .argument('<file>', 'the image that receives data')
    .addOption(format())
    .option('-b, --base <image>', 'the layer that FILE is relinked to; default: none')
    .addOption(dryRun())
    .addOption(planOut())
    .addOption(pool())
    .addOption(verify())
    .addOption(onError())
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
      act({ doing: `stream into '${file}'` }, async () =>
        (await import('../actions/stream.ts')).stream(file, options),
      ),
    );
};
