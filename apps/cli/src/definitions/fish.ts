import type { CommandModel, OptionModel, Taken } from './model.ts';

/** Completion of fish, with descriptions. */
export function fishCompletion(program: string, commands: readonly CommandModel[]): string {
  const lines = [`# fish completion for ${program}, made from its command definitions`];
  for (const { name, about, options, arguments: all } of commands) {
    lines.push(
      `complete -c ${program} -n __fish_use_subcommand -f -a ${name} -d ${quoted(about)}`,
      ...options.map((option) => optionLine(program, name, option)),
    );
    for (const { takes } of all)
      if (takes.kind === 'choice') lines.push(`${within(program, name)} -f${values(takes)}`);
  }
  return `${lines.join('\n')}\n`;
}

function within(program: string, command: string): string {
  return `complete -c ${program} -n '__fish_seen_subcommand_from ${command}'`;
}

function optionLine(program: string, command: string, option: OptionModel): string {
  const { short, long, about, takes } = option;
  const names = [
    ...(short === null ? [] : [`-s ${short.slice(1)}`]),
    ...(long === null ? [] : [`-l ${long.slice(2)}`]),
  ];
  return `${within(program, command)} ${names.join(' ')}${values(takes)} -d ${quoted(about)}`;
}

function values(takes: Taken): string {
  if (takes.kind === 'nothing') return '';
  if (takes.kind === 'choice') return ` -x -a ${quoted(takes.choices.join(' '))}`;
  if (takes.kind === 'directory') return " -x -a '(__fish_complete_directories)'";
  return takes.kind === 'file' ? ' -r -F' : ' -x';
}

function quoted(text: string): string {
  return `'${text.replaceAll(/['\\]/g, (one) => `\\${one}`)}'`;
}
