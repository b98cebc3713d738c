import type { Register } from '../command.ts';
import {
  allow,
  allowDataFile,
  forceInvalid,
  forceShare,
  format,
  imageOpts,
  object,
  output,
  progress,
  secret,
} from '../options.ts';

const EXAMPLES = `Examples:
  downfold dd if=disk.qcow2 of=start.img bs=1M count=1
  downfold dd -O qcow2 if=disk.qcow2 of=rest.qcow2 bs=1M skip=1
`;

/** Declares `downfold dd`. */
export const dd: Register = (program, act) => {
  program
    .command('dd')
    .description('copy a part of a disk into a new image')
    .argument('<operand...>', 'if=INPUT of=OUTPUT [bs=BYTES] [count=BLOCKS] [skip=BLOCKS]')
    .addOption(format())
    .option('-O, --target-format <name>', "format of the target; as qemu-img's", 'raw')
    .addOption(output('json'))
    .addOption(progress())
    .addOption(allow())
    .addOption(secret())
    .addOption(object())
    .addOption(imageOpts())
    .addOption(allowDataFile())
    .addOption(forceInvalid())
    .addOption(forceShare())
    .addHelpText('before', EXAMPLES)
    .action((operands: string[], options) =>
      act({ doing: `copy with ${operands.join(' ')}` }, async () =>
        (await import('../actions/dd.ts')).dd(operands, options),
      ),
    );
};
