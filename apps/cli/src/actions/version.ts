import { print, printJson } from '../output/print.ts';
import { VERSION } from '../version.ts';

/** `downfold version`. */
export function version(options: { readonly output: string }): number {
  if (options.output === 'json')
    printJson({ name: 'downfold', version: VERSION, node: process.versions.node });
  else print(`downfold version ${VERSION}`);
  return 0;
}
