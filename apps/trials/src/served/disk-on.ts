import { dirname, resolve } from 'node:path';
import { engine, markOf } from '../downfold.ts';
import { run } from '../tools/process.ts';

/** The disk by what is in the files alone, nobody serving it. */
export interface DiskOnFiles {
  /** What a user names. */
  readonly named: string;
  /** What is the disk: another image when an active commit pivoted. */
  readonly active: string;
  /** The disk's images, the active one first. */
  readonly images: readonly string[];
}

/** Finds the disk whose active layer was `leaf`, unless `overlay`, which somebody may have begun to make, stands on it by now. */
export async function diskOnFiles(leaf: string, overlay: string): Promise<DiskOnFiles> {
  const [, below] = await chainOf(overlay);
  const named = below === leaf ? overlay : leaf;
  const active = await activeOf(named);
  return { named, active, images: await chainOf(active) };
}

/** As README and glossary have it: a journal with PIVOT says which image is the disk, later the mark of the old one. */
async function activeOf(named: string): Promise<string> {
  const journal = await engine().journalOf(named);
  if (journal !== null && journal.pivoted !== null) return journal.pivoted;
  if ((await markOf(named, 'qcow2')) !== 'superseded') return named;
  // the trials commit the active layer into the lowest one only
  return (await chainOf(named)).at(-1) ?? named;
}

/** An image and those below it, as QEMU finds them; none when it is no image. */
async function chainOf(path: string): Promise<readonly string[]> {
  const info = ['info', '-U', '-f', 'qcow2', '--backing-chain', '--output=json', path];
  const { code, stdout } = await run('qemu-img', info);
  if (code !== 0) return [];
  const chain = JSON.parse(stdout) as readonly { readonly filename: string }[];
  return chain.map(({ filename }) => resolve(dirname(path), filename));
}
