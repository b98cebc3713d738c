import type { ArgumentModel, CommandModel, OptionModel, Taken } from './model.ts';

/** Completion of zsh, with descriptions. */
export function zshCompletion(program: string, commands: readonly CommandModel[]): string {
  const list = commands.map(({ name, about }) => `    ${quoted(`${name}:${about}`)}`);
  return `#compdef ${program}
# made from the command definitions of ${program}
_${program}() {
  local -a commands
  commands=(
${list.join('\n')}
  )
  if ((CURRENT == 2)); then
    _describe -t commands command commands
    return
  fi
  local command=$words[2]
  shift words
  ((CURRENT--))
  case $command in
${commands.map(caseOf).join('\n')}
  esac
}
if [[ $funcstack[1] == _${program} ]]; then _${program} "$@"; else compdef _${program} ${program}; fi
`;
}

function caseOf({ name, options, arguments: all }: CommandModel): string {
  const specs = [...options.flatMap(optionSpecs), ...all.map(argumentSpec)].map(quoted);
  return `    ${name})\n      _arguments -s -S \\\n        ${specs.join(' \\\n        ')} ;;`;
}

/** One for each name: `--format=[about]:name:(raw qcow2)`. */
function optionSpecs({ short, long, about, takes, repeatable }: OptionModel): readonly string[] {
  const names = [short, long].filter((name) => name !== null);
  const others = repeatable ? '*' : names.length > 1 ? `(${names.join(' ')})` : '';
  const value = takes.kind === 'nothing' ? '' : `:${escaped(valueName(takes))}:${action(takes)}`;
  return names.map((name) => {
    const joined = takes.kind === 'nothing' ? '' : name.startsWith('--') ? '=' : '+';
    return `${others}${name}${joined}[${escaped(about)}]${value}`;
  });
}

function argumentSpec({ name, takes, many }: ArgumentModel): string {
  return `${many ? '*' : ''}:${escaped(name)}:${action(takes)}`;
}

function valueName({ kind }: Taken): string {
  return kind === 'choice' ? 'value' : kind;
}

function action(takes: Taken): string {
  if (takes.kind === 'choice') return `(${takes.choices.join(' ')})`;
  if (takes.kind === 'file') return '_files';
  return takes.kind === 'directory' ? '_files -/' : ' ';
}

/** For the descriptions of `_arguments`. */
function escaped(text: string): string {
  return text.replaceAll(/[\\[\]:]/g, (one) => `\\${one}`);
}

function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
