import type { Register } from '../command.ts';
import { LATER_COMMANDS, notThereYet } from '../later.ts';

/** Declares the commands that are not there yet, hidden, so that they say so. */
export const later: Register = (program, act) => {
  for (const [name, meanwhile] of Object.entries(LATER_COMMANDS))
    program
      .command(name, { hidden: true })
      .allowUnknownOption()
      .allowExcessArguments()
      .helpOption(false)
      .action(() => act({ doing: name }, async () => notThereYet(name, meanwhile)));
};
