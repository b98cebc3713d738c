// `pnpm --filter @downfold/trials crafted DIR`: writes the corpus, to try other tools on it.
import { mkdirSync } from 'node:fs';
import { resolve } from 'node:path';
import { corpus, writeCorpus } from './corpus.ts';

const target = process.argv[2];
if (target === undefined) throw new Error('usage: crafted DIR (a directory that is not there yet)');
const directory = resolve(process.env['INIT_CWD'] ?? '.', target);
mkdirSync(directory);
await writeCorpus(directory);
process.stdout.write(`${corpus.length} images in ${directory}\n`);
