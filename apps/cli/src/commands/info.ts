import type { Register } from '../command.ts';
import { allow, forceShare, format, imageOpts, object, output, secret } from '../options.ts';

const EXAMPLES = `Examples:
  downfold info disk.qcow2
  downfold info --backing-chain --output json disk.qcow2
  downfold info -f raw disk.img
`;

/** Declares `downfold info`. */
export const info: Register = (program, act) => {
  program
    .command('info')
    .description('what an image says of itself')
    .argument('<file>')
    .addOption(format())
    .addOption(output('json'))
    .option('--backing-chain', 'all images of the chain, top first')
    .addOption(allow())
    .addOption(secret())
    .addOption(object())
    .addOption(imageOpts())
    .addOption(forceShare())
    .addHelpText('before', EXAMPLES)
    .action((file: string, options) =>
      act({ doing: `open '${file}'` }, async () =>
        (await import('../actions/info.ts')).info(file, options),
      ),
    );
};
