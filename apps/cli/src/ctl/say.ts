import { printable } from '@downfold/chain';
import { printResult } from '../output/print.ts';

/** What a server said, for a terminal: nothing in it commands the terminal. */
export function printableText(text: unknown): string {
  return printable(String(text));
}

/** A result: as JSON, or these lines, whatever a server put into them. */
export function say(
  options: { readonly output: string; readonly quiet?: boolean },
  value: unknown,
  lines: readonly string[],
): void {
  printResult(options, value, () => lines.map(printable).join('\n'));
}
