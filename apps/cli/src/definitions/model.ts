import type { Argument, Command, Option } from 'commander';
import { formats } from '../environment.ts';

/** What stands behind an option or an argument: nothing, one of a few words, a name in the file system, or anything. */
export type Taken =
  | { readonly kind: 'nothing' | 'value' | 'file' | 'directory' }
  | { readonly kind: 'choice'; readonly choices: readonly string[] };

/** One option of a command. */
export interface OptionModel {
  /** `-f`; null: it has none. */
  readonly short: string | null;
  /** `--format`; null: it has none. */
  readonly long: string | null;
  /** `-f, --format <name>`. */
  readonly flags: string;
  readonly about: string;
  readonly takes: Taken;
  readonly repeatable: boolean;
}

/** One argument of a command. */
export interface ArgumentModel {
  readonly name: string;
  readonly about: string;
  readonly takes: Taken;
  readonly many: boolean;
}

/** One command, as completions and manual pages tell of it. */
export interface CommandModel {
  readonly name: string;
  readonly about: string;
  /** `[options] <file>`. */
  readonly usage: string;
  readonly arguments: readonly ArgumentModel[];
  readonly options: readonly OptionModel[];
  /** Commands of its own; their options are among its options. */
  readonly commands: readonly CommandModel[];
  /** What its help says before and after the rest. */
  readonly before: string;
  readonly after: string;
}

/** The commands that the help lists, in its order. */
export function commandsOf(program: Command): readonly CommandModel[] {
  const help = program.createHelp();
  const commands = help.visibleCommands(program).filter((command) => command.name() !== 'help');
  return commands.map((command) => modelOf(command));
}

/** A command, or the program itself, by what was declared of it. */
export function modelOf(command: Command): CommandModel {
  const help = command.createHelp();
  const commands = command.parent === null ? [] : commandsOf(command);
  const options = [
    help.visibleOptions(command).map(optionOf),
    ...commands.map((one) => one.options),
  ].flat();
  return {
    name: command.name(),
    about: command.description(),
    usage: command.usage(),
    arguments: [...nameOf(commands), ...command.registeredArguments.map(argumentOf)],
    options: [...new Map(options.map((option) => [option.flags, option])).values()],
    commands,
    before: textOf(command, 'beforeHelp'),
    after: textOf(command, 'afterHelp'),
  };
}

/** A command that has commands takes the name of one. */
function nameOf(commands: readonly CommandModel[]): readonly ArgumentModel[] {
  if (commands.length === 0) return [];
  const choices = commands.map(({ name }) => name);
  return [{ name: 'command', about: '', takes: { kind: 'choice', choices }, many: false }];
}

function optionOf(option: Option): OptionModel {
  const { short = null, long = null, flags, description, argChoices } = option;
  return {
    short,
    long,
    flags,
    about: description,
    takes: takenBy(/<(.+?)>/.exec(flags)?.[1] ?? null, argChoices, long ?? ''),
    // what collects has no other way to say so
    repeatable: option.parseArg !== undefined && argChoices === undefined,
  };
}

function argumentOf(argument: Argument): ArgumentModel {
  const { description, variadic, argChoices } = argument;
  const name = argument.name();
  return { name, about: description, takes: takenBy(name, argChoices, ''), many: variadic };
}

const FILES: ReadonlySet<string> = new Set(['file', 'image', 'first', 'second', 'path', 'operand']);

/** What a placeholder such as `<file>` stands for. */
function takenBy(
  placeholder: string | null,
  choices: readonly string[] | undefined,
  long: string,
): Taken {
  if (choices !== undefined) return { kind: 'choice', choices };
  if (placeholder === null) return { kind: 'nothing' };
  if (long.endsWith('format')) return { kind: 'choice', choices: formats.map(({ name }) => name) };
  if (placeholder === 'dir') return { kind: 'directory' };
  const isFile = FILES.has(placeholder) || long === '--backing';
  return { kind: isFile ? 'file' : 'value' };
}

/** What `addHelpText` added at a place. */
function textOf(command: Command, place: 'beforeHelp' | 'afterHelp'): string {
  let text = '';
  const listened = command as unknown as NodeJS.EventEmitter;
  listened.emit(place, { error: false, command, write: (part: string) => (text += part) });
  return text.trim();
}
