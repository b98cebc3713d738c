import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type BenchChain, makeChain, putBack, touchMemory } from './chain.ts';
import { intermediateIn, putOnTop } from './commit-stages.ts';
import { opened, type Stage } from './contest.ts';
import { blockdevsOf, nbdExport, startDaemon } from './daemon.ts';
import { fioReads } from './fio.ts';
import { have, type Timing, timed } from './process.ts';

/** How long one read of 4 KiB in a hundred takes at least, with a commit beneath the disk and without. */
export function latencyStages(smoke: boolean): readonly Stage[] {
  const mebibytes = smoke ? 16 : 1024;
  const depths = [
    [1, 20_000],
    [16, 60_000],
  ] as const;
  const works = depths.map(
    ([depth]) => `p99 of a 4 KiB read over NBD during a commit, depth ${depth}`,
  );
  return [
    {
      name: 'latency during a commit',
      works,
      missing: () => (have('fio') ? null : 'fio is not installed'),
      open: async (directory) => {
        const chain = makeChain(directory, 'scattered', mebibytes);
        const run = async (depth: number, count: number, commit: boolean): Promise<Timing> => {
          putBack(chain);
          if (!smoke) touchMemory();
          return await percentile(chain, mebibytes, { depth, count, commit });
        };
        return opened(
          depths.map(([depth, count], index) => ({
            work: works[index] as string,
            against: 'the same without a commit',
            goal: 2,
            ours: () => run(depth, count, true),
            theirs: () => run(depth, count, false),
          })),
        );
      },
    },
  ];
}

interface Reads {
  readonly depth: number;
  readonly count: number;
  readonly commit: boolean;
}

/** The 99th percentile as the time of a run. */
async function percentile(
  chain: BenchChain,
  mebibytes: number,
  { depth, count, commit }: Reads,
): Promise<Timing> {
  const output = join(chain.directory, 'fio.json');
  const blockdevs = blockdevsOf([...chain.layers, putOnTop(chain)]);
  const { args, uri } = nbdExport(chain.directory, `node${chain.layers.length}`, false);
  await using daemon = await startDaemon('downfoldd', chain.directory, [...blockdevs, ...args]);
  if (commit)
    await daemon.qmp.execute('block-commit', { 'job-id': 'job', ...intermediateIn(chain) });
  const timing = timed(
    'fio',
    [
      ...fioReads(uri, { mebibytes, depth, jobs: 1, count }),
      ...['--output-format=json', `--output=${output}`],
    ],
    daemon.pid,
  );
  // one that is interrupted wants to be resumed
  while (commit && ((await daemon.qmp.execute('query-block-jobs')) as unknown[]).length > 0)
    await sleep(20);
  // fio puts what libnbd says before it
  const text = readFileSync(output, 'utf8');
  const { jobs } = JSON.parse(text.slice(text.indexOf('{'))) as FioReport;
  const nanoseconds = jobs[0]?.read.clat_ns.percentile['99.000000'];
  if (nanoseconds === undefined) throw new Error(`${output} has no percentiles`);
  return { ...timing, milliseconds: nanoseconds / 1e6 };
}

/** The part of fio's report that is wanted. */
interface FioReport {
  readonly jobs: readonly {
    readonly read: { readonly clat_ns: { readonly percentile: Readonly<Record<string, number>> } };
  }[];
}
