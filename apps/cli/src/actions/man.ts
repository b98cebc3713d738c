import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Command } from 'commander';
import { manualPages } from '../definitions/man.ts';
import { commandsOf, modelOf } from '../definitions/model.ts';
import { print } from '../output/print.ts';
import { VERSION } from '../version.ts';

/** `downfold man DIR`: writes the manual pages; the build does it. */
export async function man(program: Command, directory: string): Promise<number> {
  const pages = manualPages(modelOf(program), commandsOf(program), VERSION);
  await mkdir(directory, { recursive: true });
  for (const { file, text } of pages) await writeFile(join(directory, file), text);
  print(`${pages.length} pages in ${directory}`);
  return 0;
}
