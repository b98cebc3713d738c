import { InvalidArgumentError } from 'commander';
import type { Register } from '../command.ts';
import {
  allow,
  allowDataFile,
  cache,
  collect,
  forceInvalid,
  forceShare,
  format,
  imageOpts,
  object,
  output,
  progress,
  quiet,
  rate,
  secret,
  sourceCache,
} from '../options.ts';

const EXAMPLES = `Examples:
  downfold convert -O qcow2 disk.qcow2 alone.qcow2     one image with all that the chain shows
  downfold convert -O raw disk.qcow2 disk.img          zeros become holes
  downfold convert -O qcow2 -c disk.qcow2 small.qcow2  compressed
  downfold convert -O qcow2 -B base.qcow2 -F qcow2 disk.qcow2 copy.qcow2
                                                       only what lies above base.qcow2
`;

/** As qemu-img, which has as many. */
function coroutines(value: string): number {
  const number = /^(?:\d+|0x[\da-f]+)$/i.test(value) ? Number(value) : 0;
  if (number >= 1 && number <= 16) return number;
  throw new InvalidArgumentError('Allowed are 1 to 16.');
}

/** Declares `downfold convert`. */
export const convert: Register = (program, act) => {
  program
    .command('convert')
    .description('copy the disk that an image shows into a new one, which appears when it is whole')
    .argument(
      '[file...]',
      "the sources, one after the other; then the target; not needed with '-o help'",
    )
    .addOption(format())
    .option('-O, --target-format <name>', "format of the target; as qemu-img's", 'raw')
    .option('-o, --option <key=value,...>', "settings of the new image; 'help' lists them", collect)
    .option('-c, --compress', 'compress clusters')
    .option(
      '-S, --sparse <bytes>',
      'zeros of so many bytes are not written; 0: all are; default 4k',
    )
    .option('-B, --backing <name>', 'backing file of the target; what it shows is not copied')
    .option('-F, --backing-format <name>', 'its format; not guessed')
    .option(
      '-l, --snapshot <which>',
      'an internal snapshot: ID, name, or snapshot.id=,snapshot.name=',
    )
    .option('-n, --skip-create', 'write into an image that is there, in place')
    .option('--target-is-zero', 'with -n: it shows zeros everywhere')
    .option('--bitmaps', 'copy the persistent bitmaps of the source too')
    .option('--salvage', 'what cannot be read is zeros in the copy, and said')
    .option('--skip-broken-bitmaps', 'with --bitmaps: leave out those that are inconsistent')
    .option('-m, --coroutines <number>', 'taken, without effect: 1 to 16', coroutines)
    .option('-W, --out-of-order', 'taken, without effect')
    .option('-C, --copy-offload', 'taken, without effect')
    .addOption(rate())
    .addOption(cache())
    .addOption(sourceCache())
    .addOption(output('json'))
    .addOption(progress())
    .addOption(quiet())
    .addOption(allow())
    .addOption(secret())
    .addOption(object())
    .addOption(imageOpts())
    .addOption(allowDataFile())
    .addOption(forceInvalid())
    .addOption(forceShare())
    .addHelpText('before', EXAMPLES)
    .action((files: string[], options) =>
      act({ doing: `convert '${files.slice(0, -1).join("', '")}'` }, async () =>
        (await import('../actions/convert.ts')).convert(files, options),
      ),
    );
};
