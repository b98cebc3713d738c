import type { CommandModel } from './model.ts';

/** A manual page in section 1, in the macros of man(7). */
export interface ManualPage {
  /** `downfold-commit.1`. */
  readonly file: string;
  readonly text: string;
}

/** One page for each command, and one for the program that names them all. */
export function manualPages(
  program: CommandModel,
  commands: readonly CommandModel[],
  version: string,
): readonly ManualPage[] {
  const name = program.name;
  return [
    {
      file: `${name}.1`,
      text: page(name, version, [
        section('NAME', [text(`${name} - fold qcow2 backing chains down, and what qemu-img does`)]),
        section('SYNOPSIS', [`.B ${name}`, text('COMMAND [OPTIONS] [ARGUMENTS]')]),
        section('DESCRIPTION', [literal(program.before)]),
        section(
          'COMMANDS',
          commands.flatMap((one) => [
            '.TP',
            `.BR ${name}-${hyphens(one.name)} (1)`,
            text(one.about),
          ]),
        ),
        section('NOTES', [literal(program.after)]),
      ]),
    },
    ...commands.map((command) => ({
      file: `${name}-${command.name}.1`,
      text: commandPage(name, command, version),
    })),
  ];
}

function commandPage(program: string, command: CommandModel, version: string): string {
  const { name, about, usage, options } = command;
  const arguments_ = command.arguments.filter((argument) => argument.about !== '');
  return page(`${program}-${name}`, version, [
    section('NAME', [text(`${program}-${name} - ${about}`)]),
    section('SYNOPSIS', [`.B ${program} ${hyphens(name)}`, text(usage)]),
    section(
      'ARGUMENTS',
      arguments_.flatMap((one) => ['.TP', `.I ${text(one.name)}`, text(one.about)]),
    ),
    section(
      'OPTIONS',
      options.flatMap(({ flags, about: what, takes }) => [
        '.TP',
        `.B ${hyphens(flags)}`,
        text(takes.kind === 'choice' ? `${what}: ${takes.choices.join(', ')}` : what),
      ]),
    ),
    section(
      'COMMANDS',
      command.commands.flatMap((one) => [
        '.TP',
        `.B ${hyphens(one.name)} ${text(one.usage)}`,
        text(one.about),
      ]),
    ),
    section('EXAMPLES', [literal(command.before.replace(/^Examples:\n/, ''))]),
    section('NOTES', [literal(command.after)]),
    section('SEE ALSO', [`.BR ${program} (1)`]),
  ]);
}

function page(title: string, version: string, sections: readonly string[]): string {
  const head = `.TH ${hyphens(title).toUpperCase()} 1 "" "Downfold ${version}"`;
  return `${[head, ...sections.filter((one) => one !== '')].join('\n')}\n`;
}

/** A section; one without content is left out. */
function section(name: string, lines: readonly string[]): string {
  const content = lines.filter((line) => line !== '');
  return content.length === 0 ? '' : [`.SH ${name}`, ...content].join('\n');
}

/** Text as it stands, with its line ends. */
function literal(words: string): string {
  return words === '' ? '' : ['.nf', ...words.split('\n').map(text), '.fi'].join('\n');
}

/** A line that roff takes for no command, with hyphens that can be copied. */
function text(line: string): string {
  return hyphens(line).replace(/^(?=[.'])/, '\\&');
}

function hyphens(line: string): string {
  return line.replaceAll('\\', '\\e').replaceAll('-', '\\-');
}
