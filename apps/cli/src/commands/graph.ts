import type { Register } from '../command.ts';
import { allow, allowDataFile, output } from '../options.ts';

const EXAMPLES = `Examples:
  downfold graph .
  downfold graph --output svg /var/lib/images > images.svg
  downfold graph --output dot . | dot -Tpng > images.png
`;

/** Declares `downfold graph`. */
export const graph: Register = (program, act) => {
  program
    .command('graph')
    .description('every image in a pool, and who depends on whom')
    .argument('<path...>', 'directories; a file stands for its directory')
    .addOption(output('json', 'dot', 'mermaid', 'svg'))
    .addOption(allow())
    .addOption(allowDataFile())
    .addHelpText('before', EXAMPLES)
    .action((paths: string[], options) =>
      act({ doing: `draw the graph of '${paths.join("', '")}'` }, async () =>
        (await import('../actions/graph.ts')).graph(paths, options),
      ),
    );
};
