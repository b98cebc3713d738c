import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { BenchChain } from './chain.ts';
import { must, type Timing, timed } from './process.ts';

const SOURCE = fileURLToPath(new URL('./bare-copy.c', import.meta.url));

/** Part of an image as `qemu-img map` tells it. */
interface Mapped {
  readonly start: number;
  readonly length: number;
  readonly data: boolean;
  /** Images above the one that has it. */
  readonly depth: number;
  /** Where in that one's file. */
  readonly offset?: number;
}

/** What `commit` moves: every extent of data above base, and where it lies in base afterwards, as lines for `bare-copy`. */
export function extentsOf(chain: BenchChain, commit: () => void): string {
  const above = chain.layers.length - 1;
  const moved = mapped(chain, chain.top).filter(({ depth }) => depth < above);
  if (moved.length === 0) throw new Error(`${chain.top}: qemu-img map tells of nothing to commit`);
  commit();
  const there = mapped(chain, chain.base);
  const lines: string[] = [];
  let next = 0;
  for (const { start, length, depth, offset } of moved) {
    for (let at = start; at < start + length; ) {
      while ((there[next]?.start ?? 0) + (there[next]?.length ?? 0) <= at) next += 1;
      const target = there[next];
      if (target === undefined || target.start > at)
        throw new Error(`${chain.base} has no data at ${at}, which was committed`);
      const piece = Math.min(start + length, target.start + target.length) - at;
      const from = offset + at - start;
      const to = target.offset + at - target.start;
      lines.push(`${above - 1 - depth} ${from} ${to} ${piece}`);
      at += piece;
    }
  }
  return `${lines.join('\n')}\n`;
}

/** Extents with data in a file, in the order of the disk. */
function mapped({ directory }: BenchChain, image: string): readonly Required<Mapped>[] {
  const text = must('qemu-img', ['map', '--output=json', '-f', 'qcow2', image], directory);
  const all = JSON.parse(text) as readonly Mapped[];
  return all.filter((one): one is Required<Mapped> => one.data && one.offset !== undefined);
}

/** Copies `extents` of the chain's layers into its base. Needs a C compiler. */
export function bareCopy(chain: BenchChain, extents: string): Timing {
  const [program, list] = ['bare-copy', 'extents'].map((name) => join(chain.directory, name)) as [
    string,
    string,
  ];
  if (!existsSync(program)) must('cc', ['-O2', '-Wall', '-o', program, SOURCE]);
  writeFileSync(list, extents);
  return timed(program, [list, chain.base, ...chain.layers.slice(1)]);
}
