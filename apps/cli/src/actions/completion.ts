import type { Command } from 'commander';
import { bashCompletion } from '../definitions/bash.ts';
import { fishCompletion } from '../definitions/fish.ts';
import { type CommandModel, commandsOf } from '../definitions/model.ts';
import { zshCompletion } from '../definitions/zsh.ts';
import { printPart } from '../output/print.ts';

/** A shell that there are completions for. */
export type Shell = 'bash' | 'zsh' | 'fish';

const SHELLS: Readonly<
  Record<Shell, (program: string, commands: readonly CommandModel[]) => string>
> = { bash: bashCompletion, zsh: zshCompletion, fish: fishCompletion };

/** `downfold completion`: what a shell has to read once to complete command lines, without starting Downfold. */
export async function completion(program: Command, shell: Shell): Promise<number> {
  await printPart(SHELLS[shell](program.name(), commandsOf(program)));
  return 0;
}
