import { wrap } from './wrap.ts';

/** What a last column gets at least, however wide the others are. */
const LEAST_COLUMNS = 20;

/**
 * Rows as columns two blanks apart; the widths are those of the longest cells. No blanks at line ends. A last cell that would reach
 * past column `width` goes on below itself.
 */
export function table(
  rows: readonly (readonly string[])[],
  right: readonly number[] = [],
  width: number = Number.POSITIVE_INFINITY,
): string {
  const widths: number[] = [];
  for (const row of rows)
    for (const [column, cell] of row.entries())
      widths[column] = Math.max(widths[column] ?? 0, cell.length);
  const start = widths.slice(0, -1).reduce((sum, one) => sum + one + 2, 0);
  const room = Math.max(LEAST_COLUMNS, width - start);
  const line = (row: readonly string[]): string =>
    row
      .map((cell, column) => {
        const wide = widths[column] ?? 0;
        return right.includes(column) ? cell.padStart(wide) : cell.padEnd(wide);
      })
      .join('  ')
      .trimEnd();
  return rows
    .flatMap((row) => {
      if (row.length < widths.length) return [line(row)];
      const [first = '', ...more] = wrap(row.at(-1) ?? '', room);
      return [line([...row.slice(0, -1), first]), ...more.map((rest) => ' '.repeat(start) + rest)];
    })
    .join('\n');
}
