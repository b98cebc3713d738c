import { readFile, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';

/** Path of a page of `docs/`. */
export function docsPage(name: string): string {
  return fileURLToPath(new URL(`../../../../docs/${name}`, import.meta.url));
}

/**
 * Replaces what stands between `<!-- NAME:start -->` and `<!-- NAME:end -->` of a page.
 * @throws Error when the page lacks the markers
 */
export async function writeBetweenMarkers(page: string, name: string, text: string): Promise<void> {
  const [from, to] = [`<!-- ${name}:start -->`, `<!-- ${name}:end -->`];
  const before = await readFile(page, 'utf8');
  const [start, end] = [before.indexOf(from), before.indexOf(to)];
  if (start < 0 || end < start) throw new Error(`${page} lacks '${from}' and '${to}'`);
  const head = before.slice(0, start + from.length);
  await writeFile(page, `${head}\n\n${text}\n\n${before.slice(end)}`);
}

/** A Markdown table, its columns as wide as their longest cell. */
export function markdownTable(
  head: readonly string[],
  rows: readonly (readonly string[])[],
): string {
  const width = (column: number): number =>
    Math.max(3, ...[head, ...rows].map((row) => (row[column] ?? '').length));
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell, column) => cell.padEnd(width(column))).join(' | ')} |`;
  const rule = head.map((_, column) => '-'.repeat(width(column)));
  return [head, rule, ...rows].map(line).join('\n');
}
