import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { commitStages } from './commit-stages.ts';
import type { Stage } from './contest.ts';
import { latencyStages } from './latency-stage.ts';
import { measure, type Result } from './measure.ts';
import { metadataStages } from './metadata-stages.ts';
import { nbdStages } from './nbd-stages.ts';
import { type BenchOptions, parseOptions } from './options.ts';
import { markdown, type Report, reportOf, type Skipped, updateDocs } from './report.ts';

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url));

const args = process.argv.slice(2).filter((arg) => arg !== '--');
const options = parseOptions(args);
const wanted = (work: string): boolean => options.only?.test(work) ?? true;
const stages = [commitStages, metadataStages, nbdStages, latencyStages]
  .flatMap((stagesOf) => stagesOf(options.smoke))
  .filter(({ works }) => works.some(wanted));

if (options.list)
  process.stdout.write(
    `${stages
      .flatMap(({ works }) => works)
      .filter(wanted)
      .join('\n')}\n`,
  );
else await run(stages, options);

async function run(stages: readonly Stage[], options: BenchOptions): Promise<void> {
  const results: Result[] = [];
  const skipped: Skipped[] = [];
  for (const stage of stages) {
    const why = stage.missing();
    if (why !== null) {
      skipped.push(...stage.works.filter(wanted).map((work) => ({ work, why })));
      process.stderr.write(`SKIPPED: ${stage.name}: ${why}\n`);
      continue;
    }
    results.push(...(await hold(stage, options)));
    // a run takes most of an hour: what was measured is not lost when it is ended
    save(reportOf(results, skipped, options.pairs, args), options);
  }
  const report = reportOf(results, skipped, options.pairs, args);
  save(report, options);
  process.stdout.write(`${markdown(report)}\n`);
}

function save(report: Report, { updateDocs: changes }: BenchOptions): void {
  mkdirSync(here('../results'), { recursive: true });
  writeFileSync(here('../results/latest.json'), `${JSON.stringify(report, null, 1)}\n`);
  if (changes) updateDocs(here('../../../docs/performance.md'), report);
}

/** All wanted contests of a stage, in a directory that goes afterwards. */
async function hold(stage: Stage, options: BenchOptions): Promise<readonly Result[]> {
  const directory = mkdtempSync(join(options.directory ?? tmpdir(), 'downfold-bench-'));
  try {
    await using open = await stage.open(directory);
    const results: Result[] = [];
    for (const contest of open.contests.filter(({ work }) => wanted(work))) {
      const result = await measure(contest, options);
      process.stderr.write(`${result.work}: ${result.ratio.toFixed(2)}\n`);
      results.push(result);
    }
    return results;
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}
