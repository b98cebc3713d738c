import type { Register } from '../command.ts';

const EXAMPLES = `Examples:
  downfold demo
  downfold demo --dir /tmp/demo                  keep the images, to play with
`;

/** Declares `downfold demo`. */
export const demo: Register = (program, act) => {
  program
    .command('demo')
    .description('create a chain, commit the middle of it, look at what changed')
    .option('--dir <dir>', 'work here and keep the images; must not exist yet, or be empty')
    .addHelpText('before', EXAMPLES)
    .action((options) =>
      act({ doing: 'finish the demo' }, async () =>
        (await import('../actions/demo.ts')).demo(options),
      ),
    );
};
