import type { CommandModel, OptionModel } from './model.ts';

/** Completion of bash, of commands, options and their values; names of files are left to bash. */
export function bashCompletion(program: string, commands: readonly CommandModel[]): string {
  return `# bash completion for ${program}, made from its command definitions
_${program}() {
  local cur=\${COMP_WORDS[COMP_CWORD]} prev=\${COMP_WORDS[COMP_CWORD-1]} command=\${COMP_WORDS[1]}
  COMPREPLY=()
  # --output=json comes as three words
  if [[ $cur == = ]]; then cur=; elif [[ $prev == = ]]; then prev=\${COMP_WORDS[COMP_CWORD-2]}; fi
  if ((COMP_CWORD == 1)); then
    COMPREPLY=($(compgen -W '${commands.map(({ name }) => name).join(' ')} --help --version' -- "$cur"))
    return
  fi
  case "$command $prev" in
${commands.flatMap(valuesOf).join('\n')}
  esac
  [[ $cur == -* ]] || ${argumentsOf(commands)}
  case $command in
${commands.map(optionsOf).join('\n')}
  esac
}
complete -o bashdefault -o default -F _${program} ${program}
`;
}

/** What follows each option that takes something. */
function valuesOf({ name, options }: CommandModel): readonly string[] {
  return options.flatMap((option) => {
    const { takes } = option;
    if (takes.kind === 'nothing') return [];
    const pattern = namesOf(option)
      .map((flag) => `'${name} ${flag}'`)
      .join('|');
    if (takes.kind === 'choice')
      return [
        `    ${pattern}) COMPREPLY=($(compgen -W '${takes.choices.join(' ')}' -- "$cur")); return ;;`,
      ];
    if (takes.kind === 'directory')
      return [`    ${pattern}) compopt +o bashdefault +o default -o dirnames; return ;;`];
    return [`    ${pattern}) return ;;`];
  });
}

/** Arguments that are words; those that are files bash knows itself. */
function argumentsOf(commands: readonly CommandModel[]): string {
  const cases = commands.flatMap(({ name, arguments: all }) =>
    all.flatMap(({ takes }) =>
      takes.kind === 'choice'
        ? [`${name}) COMPREPLY=($(compgen -W '${takes.choices.join(' ')}' -- "$cur")) ;;`]
        : [],
    ),
  );
  return `{ case $command in ${cases.join(' ')} *) ;; esac; return; }`;
}

function optionsOf({ name, options }: CommandModel): string {
  const words = options.flatMap(namesOf).join(' ');
  return `    ${name}) COMPREPLY=($(compgen -W '${words}' -- "$cur")) ;;`;
}

function namesOf({ short, long }: OptionModel): readonly string[] {
  return [short, long].filter((name) => name !== null);
}
