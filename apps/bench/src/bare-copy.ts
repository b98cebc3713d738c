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
  readonly filename?: string;
  readonly offset?: number;
}

/** An extent of data: where it is on the disk, and where in its file. */
interface Placed {
  readonly start: number;
  readonly length: number;
  readonly file: string;
  readonly offset: number;
}

/** What `commit` moves: every extent of data above base, and where it lies in base afterwards, as lines for `bare-copy`. */
export function extentsOf(chain: BenchChain, commit: () => void): string {
  const above = chain.layers.slice(1);
  const moved = placed(chain, chain.top).filter(({ file }) => above.includes(file));
  commit();
  const there = placed(chain, chain.base);
  const lines: string[] = [];
  let next = 0;
  for (const { start, length, file, offset } of moved) {
    for (let at = start; at < start + length; ) {
      while ((there[next]?.start ?? 0) + (there[next]?.length ?? 0) <= at) next += 1;
      const target = there[next];
      if (target === undefined || target.start > at)
        throw new Error(`${chain.base} has no data at ${at}, which was committed`);
      const piece = Math.min(start + length, target.start + target.length) - at;
      const from = offset + at - start;
      const to = target.offset + at - target.start;
      lines.push(`${above.indexOf(file)} ${from} ${to} ${piece}`);
      at += piece;
    }
  }
  return `${lines.join('\n')}\n`;
}

/** Extents with data in a file, in the order of the disk. */
function placed({ directory }: BenchChain, image: string): readonly Placed[] {
  const text = must('qemu-img', ['map', '--output=json', '-f', 'qcow2', image], directory);
  return (JSON.parse(text) as readonly Mapped[]).flatMap((one) => {
    const { start, length, data, filename, offset } = one;
    if (!data || filename === undefined || offset === undefined) return [];
    return [
      { start, length, file: join(directory, filename.replace(`${directory}/`, '')), offset },
    ];
  });
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
