import { Argument, Command, CommanderError, Option } from 'commander';
import { LATER, notThereYet } from './commands/later.ts';
import { report } from './failure.ts';
import { COMMAND_EXAMPLES, EPILOG, EXAMPLES } from './help.ts';
import { Stopped } from './signals.ts';
import { VERSION } from './version.ts';

const collect = (value: string, before: readonly string[] = []): readonly string[] => [
  ...before,
  value,
];
const output = (...choices: string[]): Option =>
  new Option('--output <form>', 'form of the result').choices(choices).default('human');
const format = (): Option =>
  new Option('-f, --format <name>', 'format of the image').default('qcow2');
const allow = (): Option =>
  new Option(
    '--allow <dir>',
    'backing files may also lie in this directory (repeatable)',
  ).argParser(collect);
const forceInvalid = (): Option => new Option('--force-invalid', 'open images marked invalid');
const forceShare = (): Option => new Option('-U, --force-share', 'accepted; nothing is locked yet');
const progress = (): Option => new Option('-p, --progress', 'show progress');
const quiet = (): Option => new Option('-q, --quiet', 'print only errors');

/** What a command failed to do, and the exit code of that; 1 unless `failed` says otherwise. */
interface Act {
  readonly doing: string;
  readonly failed?: number;
}

/** Runs the command line; resolves with the exit code. */
export async function run(args: readonly string[]): Promise<number> {
  const json = args.includes('--output=json') || args[args.indexOf('--output') + 1] === 'json';
  let exitCode = 0;
  const act = async ({ doing, failed = 1 }: Act, work: () => Promise<number>): Promise<void> => {
    try {
      exitCode = await work();
    } catch (cause) {
      report(cause, doing, json);
      exitCode = cause instanceof Stopped ? cause.exitCode : failed;
    }
  };
  const program = new Command('downfold')
    .version(`downfold version ${VERSION}`, '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print help')
    .addHelpText('before', EXAMPLES)
    .addHelpText('after', EPILOG)
    .showSuggestionAfterError()
    .configureOutput({
      outputError: (text, write) => write(text.replace(/^error: /, 'downfold: ')),
    })
    .exitOverride();
  addReading(program, act);
  addWriting(program, act);
  for (const [name, meanwhile] of Object.entries(LATER))
    program
      .command(name, { hidden: true })
      .allowUnknownOption()
      .allowExcessArguments()
      .action(() => act({ doing: name }, async () => notThereYet(name, meanwhile)));
  for (const command of program.commands)
    command.addHelpText('before', COMMAND_EXAMPLES[command.name()] ?? '');
  try {
    if (args.length === 0) program.outputHelp();
    else await program.parseAsync(args, { from: 'user' });
  } catch (cause) {
    if (!(cause instanceof CommanderError)) throw cause;
    exitCode = usageExitCode(cause, args);
  }
  return exitCode;
}

/** Commander has printed its line already. A bad command line of `compare` must not look like 'differ'. */
function usageExitCode(cause: CommanderError, args: readonly string[]): number {
  if (cause.exitCode === 0) return 0;
  return args[0] === 'compare' ? 2 : 1;
}

type Run = (act: Act, work: () => Promise<number>) => Promise<void>;

function addReading(program: Command, act: Run): void {
  program
    .command('info')
    .description('what an image says of itself')
    .argument('<file>')
    .addOption(format())
    .addOption(output('human', 'json'))
    .option('--backing-chain', 'all images of the chain, top first')
    .addOption(allow())
    .addOption(forceShare())
    .action((file: string, options) =>
      act({ doing: `open '${file}'` }, async () =>
        (await import('./commands/info.ts')).info(file, options),
      ),
    );
  program
    .command('map')
    .description('which image each part of the disk comes from')
    .argument('<file>')
    .addOption(format())
    .addOption(output('human', 'json'))
    .addOption(allow())
    .addOption(forceInvalid())
    .addOption(forceShare())
    .action((file: string, options) =>
      act({ doing: `map '${file}'` }, async () =>
        (await import('./commands/map.ts')).map(file, options),
      ),
    );
  program
    .command('check')
    .description('verify the metadata of one image; never writes')
    .argument('<file>')
    .addOption(format())
    .addOption(output('human', 'json'))
    .addOption(quiet())
    .addOption(forceShare())
    .action((file: string, options) =>
      act({ doing: `check '${file}'` }, async () =>
        (await import('./commands/check.ts')).check(file, options),
      ),
    );
  program
    .command('compare')
    .description('whether two images show the same disk')
    .argument('<first>')
    .argument('<second>')
    .addOption(format())
    .option('-F, --second-format <name>', 'format of the second image', 'qcow2')
    .option('-s, --strict', 'sizes and allocation must be the same too')
    .addOption(output('human', 'json'))
    .addOption(progress())
    .addOption(quiet())
    .addOption(allow())
    .addOption(forceInvalid())
    .addOption(forceShare())
    .action((first: string, second: string, options) =>
      act({ doing: `compare '${first}' with '${second}'`, failed: 2 }, async () =>
        (await import('./commands/compare.ts')).compare(first, second, options),
      ),
    );
  program
    .command('graph')
    .description('every image in a pool, and who depends on whom')
    .addArgument(new Argument('<path...>', 'directories; a file stands for its directory'))
    .addOption(output('human', 'json', 'dot', 'mermaid', 'svg'))
    .addOption(allow())
    .action((paths: string[], options) =>
      act({ doing: `draw the graph of '${paths.join("', '")}'` }, async () =>
        (await import('./commands/graph.ts')).graph(paths, options),
      ),
    );
}

function addWriting(program: Command, act: Run): void {
  program
    .command('create')
    .description('a new, empty image; never over an existing file')
    .argument('<file>')
    .argument('[size]', 'bytes, or with a suffix k, M, G, T; default: that of the backing file')
    .addOption(format())
    .option('-b, --backing <name>', 'backing file, relative to the directory of the new image')
    .option('-F, --backing-format <name>', 'its format; not guessed')
    .addOption(
      new Option(
        '-o, --option <key=value,...>',
        'cluster_size, compat, refcount_bits, extended_l2, lazy_refcounts, compression_type, preallocation=off',
      ).argParser(collect),
    )
    .addOption(output('human', 'json'))
    .addOption(quiet())
    .action((file: string, size: string | undefined, options) =>
      act({ doing: `create '${file}'` }, async () =>
        (await import('./commands/create.ts')).create(file, size, options),
      ),
    );
  program
    .command('commit')
    .description('fold layers of a chain down into one another')
    .argument('<file>', 'the leaf of the chain')
    .addOption(format())
    .option('-b, --base <image>', "receives the data; default: top's backing file")
    .option('--top <image>', 'uppermost image that is committed; default: FILE')
    .option('--strategy <name>', 'how', 'copy-down')
    .option('-d, --drop', 'do not empty FILE afterwards; -b implies it')
    .option('--dry-run', 'print the plan; write nothing')
    .option('--verify', 'compare base with top before anything is relinked')
    .addOption(
      new Option(
        '--pool <dir>',
        'look here too for images that depend on the chain (repeatable)',
      ).argParser(collect),
    )
    .addOption(
      new Option('--keep-siblings', 'keep what other overlays of the chain read').conflicts(
        'invalidateSiblings',
      ),
    )
    .option('--invalidate-siblings', 'accept that other overlays of the chain lose their meaning')
    .option('--delete', 'delete the images that are no longer needed')
    .option('-r, --rate <bytes>', 'copy no faster than this a second, such as 10M')
    .option(
      '-t, --cache <mode>',
      "writeback only: qemu-img's other modes are not there",
      'writeback',
    )
    .addOption(output('human', 'json'))
    .addOption(progress())
    .addOption(quiet())
    .addOption(allow())
    .action((file: string, options) =>
      act({ doing: `commit '${file}'` }, async () =>
        (await import('./commands/commit.ts')).commit(file, options),
      ),
    );
  program
    .command('resume')
    .description('go on with the interrupted commit whose journal lies beside FILE')
    .argument('<file>', 'the image that was given to commit')
    .option('--verify', 'compare base with top before anything is relinked')
    .option('-r, --rate <bytes>', 'copy no faster than this a second, such as 10M')
    .addOption(output('human', 'json'))
    .addOption(progress())
    .addOption(quiet())
    .addOption(allow())
    .action((file: string, options) =>
      act({ doing: `resume the commit of '${file}'` }, async () =>
        (await import('./commands/resume.ts')).resume(file, options),
      ),
    );
  program
    .command('demo')
    .description('create a chain, commit the middle of it, look at what changed')
    .option('--dir <dir>', 'work here and keep the images; must not exist yet, or be empty')
    .action((options) =>
      act({ doing: 'finish the demo' }, async () =>
        (await import('./commands/demo.ts')).demo(options),
      ),
    );
  program
    .command('version')
    .description('print the version')
    .addOption(output('human', 'json'))
    .action((options) =>
      act({ doing: 'tell the version' }, async () =>
        (await import('./commands/version.ts')).version(options),
      ),
    );
}
