import { Option } from 'commander';
import type { Register } from '../command.ts';
import { collect, format, object, output, quiet, secret } from '../options.ts';

const EXAMPLES = `Examples:
  downfold create disk.qcow2 10G
  downfold create -b base.qcow2 -F qcow2 overlay.qcow2
  downfold create -o cluster_size=2M,extended_l2=on disk.qcow2 1T
  downfold create -o help disk.qcow2             what -o can say
`;

/** Declares `downfold create`. */
export const create: Register = (program, act) => {
  program
    .command('create')
    .description('a new, empty image; never over an existing file')
    .argument('[file]', "the new image; not needed with '-o help'")
    .argument('[size]', 'bytes, or with a suffix k, M, G, T; default: that of the backing file')
    .addOption(format())
    .option('-b, --backing <name>', 'backing file, relative to the directory of the new image')
    .option('-F, --backing-format <name>', 'its format; not guessed')
    .option('-u, --unsafe', 'do not look at the backing file')
    .addOption(
      new Option(
        '-o, --option <key=value,...>',
        "settings of the format; 'help' lists them",
      ).argParser(collect),
    )
    .addOption(secret())
    .addOption(object())
    .addOption(output('json'))
    .addOption(quiet())
    .addHelpText('before', EXAMPLES)
    .action((file: string | undefined, size: string | undefined, options) =>
      act({ doing: file === undefined ? 'create an image' : `create '${file}'` }, async () =>
        (await import('../actions/create.ts')).create(file, size, options),
      ),
    );
};
