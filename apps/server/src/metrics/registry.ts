import { printable } from '@downfold/chain';
import { NEXT } from '@downfold/job';
import { Counter, collectDefaultMetrics, Gauge, type Histogram, Registry } from 'prom-client';
import type { Disk } from '../graph/disk.ts';
import { layerOf } from '../graph/node.ts';
import { VERSION } from '../version.ts';
import type { Distribution } from './distribution.ts';
import type { CommandCounters } from './export-counters.ts';
import { problemsOf } from './health.ts';
import type { Observed } from './observed.ts';

type Labels = Readonly<Record<string, string>>;
type Samples = Iterable<readonly [labels: Labels, value: number]>;

/** Gauges of the library whose names promise counters, and which tell nothing here. */
const MISNAMED: readonly string[] = [
  'nodejs_active_handles',
  'nodejs_active_handles_total',
  'nodejs_active_requests',
  'nodejs_active_requests_total',
  'nodejs_active_resources',
  'nodejs_active_resources_total',
];

/**
 * Everything that is measured, as a registry of prom-client. Nothing is kept twice: what the server counts is looked at when somebody asks. Labels
 * are ids of exports and jobs that are there now, nodes of disks, and words of this program: nobody who only talks NBD can add to them.
 */
export function registryOf(observed: Observed): Registry {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  for (const name of MISNAMED) registry.removeSingleMetric(name);
  addServer(registry, observed);
  addExports(registry, observed);
  addJobs(registry, observed);
  return registry;
}

function addServer(registry: Registry, observed: Observed): void {
  const { graph, status } = observed;
  gauge(registry, 'downfold_build_info', 'The version; always 1.', ['version'], () => [
    [{ version: VERSION }, 1],
  ]);
  gauge(registry, 'downfold_healthy', 'Whether /healthz says ok.', [], () => [
    [{}, problemsOf(observed).length === 0 ? 1 : 0],
  ]);
  gauge(
    registry,
    'downfold_journals_found',
    'Journals of interrupted jobs that were found at the start.',
    [],
    () => [[{}, status.journals]],
  );
  // by the nodes of active layers: while a job changes its layers a disk may have none
  const disks = (value: (disk: Disk) => number) => (): Samples =>
    [...graph].flatMap((node): [Labels, number][] =>
      node.kind === 'image' && node.disk?.active === layerOf(node)?.layer && node.disk !== null
        ? [[{ node: printable(node.name) }, value(node.disk)]]
        : [],
    );
  gauge(
    registry,
    'downfold_disk_layers',
    'Images that make up a disk.',
    ['node'],
    disks(({ layers }) => layers.length),
  );
  gauge(
    registry,
    'downfold_disk_failed',
    'Whether a flush failed: the disk takes no more changes.',
    ['node'],
    disks(({ isSound }) => (isSound ? 0 : 1)),
  );
}

function addExports(registry: Registry, { exports }: Observed): void {
  const commands = ['export', 'command'];
  const each = (): readonly (readonly [Labels, CommandCounters])[] =>
    exports.measured.flatMap(({ id, counters }) =>
      counters.commands.map(
        (one) => [{ export: printable(id), command: one.command }, one] as const,
      ),
    );
  counter(
    registry,
    'downfold_export_requests_total',
    'Requests of clients, whatever became of them.',
    commands,
    () => each().map(([labels, one]) => [labels, one.requests]),
  );
  counter(
    registry,
    'downfold_export_bytes_total',
    'Bytes that requests were about which succeeded.',
    commands,
    () => each().map(([labels, one]) => [labels, one.bytes]),
  );
  counter(
    registry,
    'downfold_export_errors_total',
    'Requests that were refused or failed, by what the client was told.',
    [...commands, 'errno'],
    () =>
      each().flatMap(([labels, one]) =>
        one.errors.map(([errno, count]): [Labels, number] => [{ ...labels, errno }, count]),
      ),
  );
  histogram(
    registry,
    'downfold_export_request_duration_seconds',
    'How long the disk took for a request that it was asked to do.',
    () => each().map(([labels, one]) => [labels, one.duration]),
  );
  gauge(registry, 'downfold_export_clients', 'Clients that use an export.', ['export'], () =>
    exports.measured.map(({ id, clients }) => [{ export: printable(id) }, clients]),
  );
  gauge(
    registry,
    'downfold_nbd_clients',
    'Connections to the NBD server, those within their handshake included.',
    [],
    () => [[{}, exports.server?.clients ?? 0]],
  );
  gauge(
    registry,
    'downfold_nbd_threads',
    'Threads that serve a connection to the NBD server each, or wait for one.',
    ['state'],
    () => Object.entries(exports.server?.threads ?? {}).map(([state, count]) => [{ state }, count]),
  );
  counter(
    registry,
    'downfold_nbd_dropped_clients_total',
    'Clients that were turned away or cut off, by why.',
    ['reason'],
    () => [...exports.dropped].map(([reason, count]) => [{ reason }, count]),
  );
}

function addJobs(registry: Registry, { jobs }: Observed): void {
  const { counters } = jobs;
  const all = (value: 'current-progress' | 'total-progress') => (): Samples =>
    [...jobs.jobs].map((job) => {
      const info = job.info();
      counters.progress(info.id, info.type, info['current-progress']);
      return [{ job: info.id, type: info.type }, info[value]];
    });
  const named = ['job', 'type'];
  gauge(
    registry,
    'downfold_job_state',
    'The state of a job: 1 for the one it is in.',
    [...named, 'state'],
    () =>
      [...jobs.jobs].flatMap(({ id, type, state }) =>
        Object.keys(NEXT).map((one): [Labels, number] => [
          { job: id, type, state: one },
          one === state ? 1 : 0,
        ]),
      ),
  );
  gauge(
    registry,
    'downfold_job_progress_bytes',
    'How far a job is.',
    named,
    all('current-progress'),
  );
  gauge(
    registry,
    'downfold_job_length_bytes',
    'How far it has to go.',
    named,
    all('total-progress'),
  );
  gauge(
    registry,
    'downfold_job_speed_limit_bytes',
    'Bytes a second that a job may move; 0: as many as it can.',
    named,
    () => [...jobs.jobs].map((job) => [{ job: job.id, type: job.type }, job.blockInfo().speed]),
  );
  counter(
    registry,
    'downfold_jobs_moved_bytes_total',
    'Bytes that jobs have moved; its rate is their throughput.',
    ['type'],
    () => {
      all('current-progress')();
      return [...counters.moved].map(([type, bytes]) => [{ type }, bytes]);
    },
  );
  counter(registry, 'downfold_jobs_ended_total', 'Jobs that are over.', ['type', 'result'], () =>
    [...counters.ended].map(({ names: [type, result], count }) => [{ type, result }, count]),
  );
  counter(
    registry,
    'downfold_job_errors_total',
    'Reads and writes of jobs that failed, and what was done about it.',
    ['operation', 'action'],
    () =>
      [...counters.errors].map(({ names: [operation, action], count }) => [
        { operation, action },
        count,
      ]),
  );
  histogram(
    registry,
    'downfold_drained_section_duration_seconds',
    'How long the requests of a disk were held while its images were changed.',
    () => [...counters.sections].map(([work, duration]) => [{ work }, duration]),
  );
  counter(
    registry,
    'downfold_drained_section_held_requests_total',
    'Requests that came meanwhile, and waited.',
    [],
    () => [[{}, counters.held]],
  );
}

function gauge(
  registry: Registry,
  name: string,
  help: string,
  labelNames: readonly string[],
  samples: () => Samples,
): void {
  new Gauge({
    name,
    help,
    labelNames,
    registers: [registry],
    collect() {
      this.reset();
      for (const [labels, value] of samples()) this.set(labels, value);
    },
  });
}

function counter(
  registry: Registry,
  name: string,
  help: string,
  labelNames: readonly string[],
  samples: () => Samples,
): void {
  new Counter({
    name,
    help,
    labelNames,
    registers: [registry],
    collect() {
      this.reset();
      for (const [labels, value] of samples()) this.inc(labels, value);
    },
  });
}

/** prom-client's own histogram makes objects for each observation: this one only shows what was counted without. */
function histogram(
  registry: Registry,
  name: string,
  help: string,
  samples: () => Iterable<readonly [Labels, Distribution]>,
): void {
  const get = async () => ({
    name,
    help,
    type: 'histogram',
    aggregator: 'sum',
    values: [...samples()].flatMap(([labels, distribution]) => {
      const buckets = distribution.cumulated();
      const count = buckets.at(-1)?.[1] ?? 0;
      return [
        ...buckets.map(([bound, value]) => ({
          metricName: `${name}_bucket`,
          labels: { ...labels, le: bound === Number.POSITIVE_INFINITY ? '+Inf' : String(bound) },
          value,
        })),
        { metricName: `${name}_sum`, labels, value: distribution.sum },
        { metricName: `${name}_count`, labels, value: count },
      ];
    }),
  });
  // a registry asks a metric for no more than its name and `get`
  registry.registerMetric({ name, get } as unknown as Histogram);
}
