import { withoutMaglev } from '@downfold/host';
import { isUtf8 } from '@downfold/storage';
import { firstFailure } from '@downfold/units';
import { Command, CommanderError } from 'commander';
import type { Act, Register } from './command.ts';
import { abort } from './commands/abort.ts';
import { amend } from './commands/amend.ts';
import { bitmap } from './commands/bitmap.ts';
import { check } from './commands/check.ts';
import { commit } from './commands/commit.ts';
import { compare } from './commands/compare.ts';
import { completion } from './commands/completion.ts';
import { convert } from './commands/convert.ts';
import { create } from './commands/create.ts';
import { ctl } from './commands/ctl.ts';
import { dd } from './commands/dd.ts';
import { demo } from './commands/demo.ts';
import { graph } from './commands/graph.ts';
import { info } from './commands/info.ts';
import { later } from './commands/later.ts';
import { map } from './commands/map.ts';
import { measure } from './commands/measure.ts';
import { rebase } from './commands/rebase.ts';
import { resize } from './commands/resize.ts';
import { resume } from './commands/resume.ts';
import { snapshot } from './commands/snapshot.ts';
import { stream } from './commands/stream.ts';
import { version } from './commands/version.ts';
import { FailureWithCode, report, UsageError } from './failure.ts';
import { EPILOG, EXAMPLES } from './help.ts';
import { applyImageOpts } from './image-opts.ts';
import { asksJson } from './lost-result.ts';
import { stderr, stdout } from './output/streams.ts';
import { VERSION } from './version.ts';

/** By name, in the order of the help. */
const COMMANDS: Readonly<Record<string, Register>> = {
  info,
  map,
  check,
  compare,
  graph,
  create,
  convert,
  dd,
  resize,
  measure,
  snapshot,
  bitmap,
  amend,
  commit,
  stream,
  rebase,
  resume,
  abort,
  ctl,
  demo,
  completion,
  version,
};

/** The command whose work is about the others. */
const TELLS_OF_ALL = 'completion';

/** Runs the command line; resolves with the exit code. */
export async function run(args: readonly string[]): Promise<number> {
  withoutMaglev();
  const json = asksJson(args);
  let exitCode = 0;
  const act: Act = async ({ doing, failed = 1 }, work) => {
    try {
      exitCode = await work();
    } catch (thrown) {
      const cause = firstFailure(thrown);
      report(cause, doing, json);
      exitCode = cause instanceof FailureWithCode ? cause.exitCode : failed;
    }
  };
  const program = programOf(act, args[0]);
  try {
    assertUtf8(args);
    if (args.length === 0) program.outputHelp();
    else await program.parseAsync(withSize(args), { from: 'user' });
  } catch (cause) {
    if (!(cause instanceof CommanderError || cause instanceof UsageError)) throw cause;
    const wrong = cause instanceof UsageError ? cause : new UsageError(oneLine(cause.message));
    if (cause instanceof CommanderError && cause.exitCode === 0) return 0;
    // a command that has commands, without one: its help is on stderr already
    if (cause.code === 'commander.help') return 1;
    report(wrong, 'understand the command line', json);
    // a bad command line must not look like 'the disks differ'
    exitCode = args[0] === 'compare' ? 2 : 1;
  }
  return exitCode;
}

/** @throws UsageError when what Node made of an argument would name something else */
function assertUtf8(args: readonly string[]): void {
  const wrong = args.find((word) => !isUtf8(word));
  if (wrong !== undefined) throw new UsageError(`'${wrong}': names must be UTF-8`);
}

/** `resize FILE -5G`, as qemu-img has it: the size is no option. */
function withSize(args: readonly string[]): readonly string[] {
  const last = args.at(-1) ?? '';
  if (args[0] !== 'resize' || args.includes('--') || !/^-\d/.test(last)) return args;
  return [...args.slice(0, -1), '--', last];
}

/** A command is declared by itself when it is the first word: declaring all takes some milliseconds. */
function programOf(act: Act, first: string | undefined): Command {
  const program = new Command('downfold')
    .version(`downfold version ${VERSION}`, '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print help')
    .addHelpText('before', EXAMPLES)
    .addHelpText('after', EPILOG)
    .showSuggestionAfterError()
    // what is wrong with the command line is reported like every other failure
    .configureOutput({
      outputError: () => {},
      writeOut: (text) => stdout().write(text),
      writeErr: (text) => stderr().write(text),
    })
    .exitOverride()
    .hook('preAction', (_, command) => applyImageOpts(command));
  const one =
    first !== undefined && first !== TELLS_OF_ALL && Object.hasOwn(COMMANDS, first)
      ? COMMANDS[first]
      : undefined;
  const all = [...Object.values(COMMANDS), later];
  for (const register of one === undefined ? all : [one]) register(program, act);
  return program;
}

/** Commander's `error: what` and `(Did you mean that?)` as one line. */
function oneLine(message: string): string {
  return message.replace(/^error: /, '').replace(/\s*\n\((.*)\)\s*$/, ' ($1)');
}
