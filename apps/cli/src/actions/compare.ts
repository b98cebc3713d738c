import { openChain } from '@downfold/chain';
import { compareDisks, type Difference } from '../compare-disks.ts';
import { type Access, environmentFor } from '../environment.ts';
import { print, printJson } from '../output/print.ts';
import { progressDisplay } from '../output/progress.ts';
import { absolute } from '../paths.ts';

/** Options of `compare`. */
export interface CompareOptions extends Access {
  readonly format: string;
  readonly secondFormat: string;
  readonly output: string;
  readonly strict?: boolean;
  readonly progress?: boolean;
  readonly quiet?: boolean;
}

/** `downfold compare`: 0 the disks are the same, 1 they differ (2: could not be compared). */
export async function compare(
  first: string,
  second: string,
  options: CompareOptions,
): Promise<number> {
  await using one = await openChain(
    absolute(first),
    options.format,
    environmentFor(first, options),
  );
  await using other = await openChain(
    absolute(second),
    options.secondFormat,
    environmentFor(second, options),
  );
  const json = options.output === 'json';
  const sizes = [one, other].map(({ layers }) => layers.at(-1)?.image.geometry.virtualSize ?? 0);
  const [shorter, longer] = [Math.min(...sizes), Math.max(...sizes)];
  const sameSize = shorter === longer;
  const strict = options.strict === true;
  const say = (line: string): void => {
    if (!json && options.quiet !== true) print(line);
  };
  if (!sameSize && strict) {
    say('Strict mode: Image size mismatch!');
    if (json) printJson({ identical: false, reason: 'size', offset: null });
    return 1;
  }
  const display = progressDisplay({
    progress: options.progress,
    quiet: options.quiet === true || options.progress !== true,
    json,
  });
  let difference: Difference | null;
  let whole = false;
  try {
    difference = await compareDisks(one, other, { strict, onProgress: display.show });
    whole = difference === null;
  } finally {
    display.end(whole);
  }
  if (json)
    printJson({
      identical: difference === null,
      reason: difference?.reason ?? null,
      offset: difference?.offset ?? null,
    });
  // only of interest where the shorter one has nothing against it
  if (!sameSize && (difference?.offset ?? longer) >= shorter) say('Warning: Image size mismatch!');
  say(difference === null ? 'Images are identical.' : sentence(difference));
  return difference === null ? 0 : 1;
}

function sentence({ reason, offset }: Difference): string {
  return reason === 'allocation'
    ? `Strict mode: Offset ${offset} block status mismatch!`
    : `Content mismatch at offset ${offset}!`;
}
