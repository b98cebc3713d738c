import { linkSync, mkdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { must } from '../tools/process.ts';
import { backingCases } from './backing-cases.ts';
import { bitmapCases } from './bitmap-cases.ts';
import type { Companion, CraftedCase } from './case.ts';
import { contentCases } from './content-cases.ts';
import { dataFileCases } from './data-file-cases.ts';
import { headerCases } from './header-cases.ts';
import { luksCases } from './luks-cases.ts';
import { snapshotCases } from './snapshot-cases.ts';
import { writeSparse } from './sparse.ts';
import { tableCases } from './table-cases.ts';

/** Every crafted image; names are unique. */
export const corpus: readonly CraftedCase[] = [
  ...headerCases,
  ...tableCases,
  ...contentCases,
  ...backingCases,
  ...luksCases,
  ...dataFileCases,
  ...bitmapCases,
  ...snapshotCases,
];

/** Where `writeCorpus` puts a case's image. */
export function imagePath(directory: string, name: string): string {
  return join(directory, name, 'image.qcow2');
}

/** Writes every image and what stands beside it to `directory`, and a secret to `directory/outside`. */
export async function writeCorpus(directory: string): Promise<void> {
  mkdirSync(join(directory, 'outside'), { recursive: true });
  writeSparse(join(directory, 'outside', 'secret.raw'), {
    length: 1 << 20,
    pieces: [{ at: 0, bytes: Buffer.from('a secret of the host') }],
  });
  for (const item of corpus) {
    const own = join(directory, item.name);
    mkdirSync(own);
    writeSparse(imagePath(directory, item.name), item.image);
    for (const companion of item.companions ?? []) await writeCompanion(own, companion);
  }
}

async function writeCompanion(own: string, companion: Companion): Promise<void> {
  const path = join(own, companion.name);
  if ('file' in companion) writeSparse(path, companion.file);
  else if ('link' in companion) symlinkSync(companion.link, path);
  else if ('hardLink' in companion) linkSync(join(own, 'image.qcow2'), path);
  else if ('fifo' in companion) await must('mkfifo', [path]);
  else mkdirSync(path);
}
