import { UsageError } from './failure.ts';

/** Commands that design and qemu-img have and this version has not, with what does it meanwhile. */
export const LATER_COMMANDS: Readonly<Record<string, string>> = {
  serve: "meanwhile 'downfoldd' of the package @downfold/server",
};

/** The strategies that `commit --strategy` takes by name, besides `auto`. */
export const STRATEGIES: readonly string[] = ['copy-down', 'depth-first', 'preserve', 'staged'];

/** @throws UsageError always. */
export function notThereYet(what: string, meanwhile: string): never {
  throw new UsageError(`'${what}' is not there yet: it comes with a later version; ${meanwhile}`);
}
