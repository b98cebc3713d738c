import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Shape } from './chain.ts';
import { measure } from './measure.ts';
import { parseOptions } from './options.ts';
import { markdown, reportOf, updateDocs } from './report.ts';

const SHAPES: readonly Shape[] = ['sequential', 'scattered'];
const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url));

const args = process.argv.slice(2).filter((arg) => arg !== '--');
const options = parseOptions(args);
const directory = mkdtempSync(join(options.directory ?? tmpdir(), 'downfold-bench-'));
try {
  const scenarios = SHAPES.map((shape) => {
    const scenario = measure(directory, shape, options);
    rmSync(join(directory, shape), { recursive: true });
    return scenario;
  });
  const report = reportOf(scenarios, args);
  process.stdout.write(`${markdown(report)}\n`);
  mkdirSync(here('../results'), { recursive: true });
  writeFileSync(here('../results/latest.json'), `${JSON.stringify(report, null, 1)}\n`);
  if (options.updateDocs) updateDocs(here('../../../docs/performance.md'), report);
} finally {
  rmSync(directory, { recursive: true, force: true });
}
