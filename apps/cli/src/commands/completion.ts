import { Argument } from 'commander';
import type { Shell } from '../actions/completion.ts';
import type { Register } from '../command.ts';

const EXAMPLES = `Examples:
  downfold completion bash > ~/.local/share/bash-completion/completions/downfold
  downfold completion zsh > ~/.zfunc/_downfold   with ~/.zfunc in $fpath
  downfold completion fish > ~/.config/fish/completions/downfold.fish
`;

/** Declares `downfold completion`, and `downfold man`, hidden, which the build runs. */
export const completion: Register = (program, act) => {
  program
    .command('completion')
    .description('print what a shell needs to complete command lines')
    .addArgument(new Argument('<shell>').choices(['bash', 'zsh', 'fish']))
    .addHelpText('before', EXAMPLES)
    .action((shell: Shell) =>
      act({ doing: 'print completions' }, async () =>
        (await import('../actions/completion.ts')).completion(program, shell),
      ),
    );
  program
    .command('man', { hidden: true })
    .description('write the manual pages')
    .argument('<dir>')
    .action((directory: string) =>
      act({ doing: `write manual pages to '${directory}'` }, async () =>
        (await import('../actions/man.ts')).man(program, directory),
      ),
    );
};
