import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  COMMAND,
  connectNbd,
  encodeClientFlags,
  encodeInfoQuery,
  encodeOption,
  encodeRequestHeader,
  OPTION,
} from '@downfold/nbd';
import { describe, expect, it } from 'vitest';
import { type Family, familiesOf, haveReader, sampleOf } from './exposition.ts';
import { get, METRICS, SOCKET } from './http.ts';
import { Bench, BIN, cramped, haveAll, haveTools, limit, MIB, makeChain } from './support.ts';

async function scrape(bench: Bench): Promise<readonly Family[]> {
  const { status, type, text } = await get(bench, '/metrics');
  expect({ status, type }).toEqual({
    status: 200,
    type: 'text/plain; version=0.0.4; charset=utf-8',
  });
  return familiesOf(text);
}

const COMMIT = {
  'job-id': 'c0',
  device: 'disk',
  'top-node': '#mid.qcow2',
  'base-node': '#base.qcow2',
};

/** Prometheus' rules for names, and what makes a histogram one. Source: prometheus.io, "Metric and label naming", "Exposition formats". */
function expectSound(families: readonly Family[]): void {
  for (const { name, type, help, samples } of families) {
    expect(name).toMatch(/^(downfold|process|nodejs)_[a-z0-9_]+$/);
    expect(help, name).not.toBe('');
    // the reader has taken `_total` from the name of a counter, not from those of its samples
    for (const sample of samples)
      expect(sample.name.endsWith('_total'), sample.name).toBe(type === 'counter');
    expect(name, 'seconds and bytes, nothing else').not.toMatch(/(_ms|milliseconds|_kb|_mib)$/);
    if (type === 'histogram') expectCumulative(name, samples);
  }
}

function expectCumulative(name: string, samples: Family['samples']): void {
  const series = Map.groupBy(samples, ({ labels: { le: _, ...rest } }) => JSON.stringify(rest));
  for (const [labels, all] of series) {
    const buckets = all.filter((sample) => sample.name === `${name}_bucket`);
    const counts = buckets.map(({ value }) => Number(value));
    expect(counts, `${name} ${labels}`).toEqual(counts.toSorted((a, b) => a - b));
    expect(buckets.at(-1)?.labels['le']).toBe('+Inf');
    const count = all.find((sample) => sample.name === `${name}_count`)?.value;
    expect(Number(count), `${name} ${labels}`).toBe(counts.at(-1));
  }
}

describe.skipIf(!haveReader || !haveTools)('/metrics, read by a program that is not ours', () => {
  it('counts what clients of an export do', async () => {
    await using bench = new Bench();
    await makeChain(bench);
    await bench.disk('top.qcow2', ...METRICS);
    const io = ['-c', 'write 0 3M', '-c', 'read 1M 512k', '-c', 'discard 8M 1M', '-c', 'flush'];
    await bench.must('qemu-io', '-f', 'raw', ...io, bench.uri);
    await using client = await connectNbd({ server: { path: bench.file('run/nbd.sock') } });
    await client.read(0, Buffer.alloc(512));
    const families = await scrape(bench);
    expectSound(families);
    const of = (name: string, command: string, more: object = {}): number =>
      sampleOf(families, `downfold_export_${name}`, { export: 'disk', command, ...more });
    expect(of('bytes_total', 'write')).toBe(3 * MIB);
    expect(of('requests_total', 'write')).toBe(1);
    expect(of('bytes_total', 'read')).toBe(MIB / 2 + 512);
    expect(of('requests_total', 'read')).toBe(2);
    expect(of('bytes_total', 'trim')).toBe(MIB);
    expect(of('requests_total', 'flush')).toBeGreaterThan(0);
    expect(of('request_duration_seconds_count', 'write')).toBe(1);
    expect(of('request_duration_seconds_sum', 'write')).toBeGreaterThan(0);
    expect(of('request_duration_seconds_sum', 'write')).toBeLessThan(10);
    expect(sampleOf(families, 'downfold_export_clients', { export: 'disk' })).toBe(1);
    expect(sampleOf(families, 'downfold_nbd_clients')).toBe(1);
    expect(sampleOf(families, 'downfold_disk_layers', { node: 'disk' })).toBe(3);
    expect(sampleOf(families, 'downfold_healthy')).toBe(1);
    expect(sampleOf(families, 'process_open_fds')).toBeGreaterThan(10);
  });

  it('tells of jobs, of the time that requests were held, and of journals that were found', async () => {
    await using bench = new Bench();
    await makeChain(bench);
    const first = await bench.disk('top.qcow2', ...METRICS);
    await first.execute('block-commit', { ...COMMIT, speed: MIB / 2 });
    await expect
      .poll(
        async () =>
          sampleOf(await scrape(bench), 'downfold_jobs_moved_bytes_total', { type: 'commit' }),
        { timeout: 10_000 },
      )
      .toBeGreaterThan(0);
    await first.execute('job-pause', { id: 'c0' });
    await first.until('paused');
    const paused = await scrape(bench);
    expectSound(paused);
    const state = (name: string): number =>
      sampleOf(paused, 'downfold_job_state', { job: 'c0', type: 'commit', state: name });
    expect([state('paused'), state('running'), state('concluded')]).toEqual([1, 0, 0]);
    const progress = sampleOf(paused, 'downfold_job_progress_bytes', { job: 'c0' });
    expect(progress).toBe(sampleOf(paused, 'downfold_jobs_moved_bytes_total', { type: 'commit' }));
    expect(sampleOf(paused, 'downfold_job_length_bytes', { job: 'c0' })).toBe(4 * MIB);
    expect(sampleOf(paused, 'downfold_job_speed_limit_bytes', { job: 'c0' })).toBe(MIB / 2);
    expect(sampleOf(paused, 'downfold_journals_found')).toBe(0);
    await first.kill();

    const second = await bench.disk('top.qcow2', '--resume', ...METRICS);
    expect(sampleOf(await scrape(bench), 'downfold_journals_found')).toBe(1);
    await expect.poll(() => second.execute('query-jobs'), { timeout: 10_000 }).toEqual([]);
    const done = await scrape(bench);
    const ended = { type: 'commit', result: 'completed' };
    expect(sampleOf(done, 'downfold_jobs_ended_total', ended)).toBe(1);
    expect(sampleOf(done, 'downfold_jobs_moved_bytes_total', { type: 'commit' })).toBeGreaterThan(
      0,
    );
    await second.execute('blockdev-snapshot-sync', {
      device: 'disk',
      'snapshot-file': bench.file('snapshot.qcow2'),
      'snapshot-node-name': 's',
    });
    const snapshots = { work: 'snapshot' };
    expect(
      sampleOf(await scrape(bench), 'downfold_drained_section_duration_seconds_count', snapshots),
    ).toBe(1);
    expect(second.server.stderr).toMatch(/snapshot\.qcow2: snapshot: requests were held for/);
    const relinks = { work: 'relink' };
    expect(
      sampleOf(done, 'downfold_drained_section_duration_seconds_count', relinks),
    ).toBeGreaterThan(0);
    // series of jobs that are gone go with them
    expect(() => sampleOf(done, 'downfold_job_state', { state: 'running' })).toThrow(/^0 samples/);
    expect(sampleOf(done, 'downfold_disk_layers', { node: 'disk' })).toBe(2);
  });

  it('has no label that a client of an export can make up', async () => {
    await using bench = new Bench();
    await makeChain(bench);
    await bench.disk('top.qcow2', ...METRICS);
    const before = (await scrape(bench)).flatMap(({ samples }) => samples).length;
    const socket = connect(bench.file('run/nbd.sock'));
    socket.on('error', () => {}).resume();
    socket.write(encodeClientFlags(3));
    socket.write(encodeOption(OPTION.go, encodeInfoQuery({ name: '', infos: [] })));
    for (let command = 8; command < 200; command++)
      socket.write(
        encodeRequestHeader({ command, flags: 0, cookie: command, offset: 0, length: 1 }, false),
      );
    socket.end(
      encodeRequestHeader({ command: 2, flags: 0, cookie: 0, offset: 0, length: 0 }, false),
    );
    await new Promise((resolve) => socket.once('close', resolve));
    const after = await scrape(bench);
    const other = { export: 'disk', command: 'other' };
    expect(sampleOf(after, 'downfold_export_requests_total', other)).toBe(192);
    expect(sampleOf(after, 'downfold_export_errors_total', { ...other, errno: 'EINVAL' })).toBe(
      192,
    );
    expect(after.flatMap(({ samples }) => samples)).toHaveLength(before);
  });
});

describe('the listener', () => {
  it('is for its user alone, and has two pages', async () => {
    await using bench = new Bench();
    await makeChain(bench);
    const served = await bench.disk('top.qcow2', ...METRICS);
    expect([bench.mode('run'), bench.mode(SOCKET)]).toEqual(['700', '600']);
    expect(await get(bench, '/healthz')).toMatchObject({ status: 200, text: 'ok\n' });
    expect(await get(bench, '/healthz', 'HEAD')).toMatchObject({ status: 200, text: '' });
    expect(await get(bench, '/metrics', 'POST')).toMatchObject({ status: 405 });
    expect(await get(bench, '/')).toMatchObject({ status: 404 });
    expect((await served.stop()).code).toBe(0);
  });

  it('is refused where others could reach it, with the reason', async () => {
    await using bench = new Bench();
    const said = async (address: string): Promise<string> => {
      const args = ['none.qcow2', '--qmp', 'unix:run/qmp.sock', '--metrics', address];
      const { code, stderr } = await bench.start(args).ended;
      expect(code).toBe(1);
      return stderr;
    };
    for (const address of ['0.0.0.0:0', '192.0.2.1:9100', '[::]:0', 'example.com:9100'])
      expect(await said(address)).toMatch(/no loopback address.*no login; say 127\.0\.0\.1:PORT/);
    expect(await said('9100')).toMatch(/--metrics: '9100' is neither unix:PATH nor HOST:PORT/);
  });

  it('serves a socket of a supervisor, unless that is open to others', async () => {
    await using bench = new Bench();
    await makeChain(bench);
    const given = (host: string) =>
      bench.program(
        'perl',
        '-MSocket',
        '-e',
        `$^F = 255;
         socket(my $socket, AF_INET, SOCK_STREAM, 0) or die $!;
         bind($socket, pack_sockaddr_in(0, inet_aton('${host}'))) or die $!;
         listen($socket, 8) or die $!;
         die 'not 3' unless fileno($socket) == 3;
         @ENV{qw(LISTEN_PID LISTEN_FDS LISTEN_FDNAMES)} = ($$, 1, 'metrics');
         exec @ARGV;`,
        ...[process.execPath, BIN, 'top.qcow2', '--qmp', 'unix:run/qmp.sock'],
      );
    const open = await given('0.0.0.0').ended;
    expect(open).toMatchObject({ code: 1, stderr: expect.stringContaining('no loopback address') });
    const good = given('127.0.0.1');
    await good.said(/QMP at/);
    const [url = ''] = /http:\S+/.exec(good.stderr) ?? [];
    expect((await fetch(new URL('/healthz', url))).status).toBe(200);
  });
});

describe('/healthz', () => {
  it('says 503 while the server stops', async () => {
    await using bench = new Bench();
    await makeChain(bench);
    const served = await bench.disk('top.qcow2', ...METRICS);
    // a client that does not take its answers is waited for
    const socket = connect(bench.file('run/nbd.sock')).pause();
    socket.write(encodeClientFlags(3));
    socket.write(encodeOption(OPTION.go, encodeInfoQuery({ name: '', infos: [] })));
    const read = { command: COMMAND.read, flags: 0, cookie: 1, offset: 0, length: 8 * MIB };
    socket.write(encodeRequestHeader(read, false));
    await sleep(300);
    served.server.kill('SIGTERM');
    await served.server.said(/SIGTERM: stopping/);
    await expect
      .poll(() => get(bench, '/healthz'))
      .toMatchObject({ status: 503, text: 'shutting down\n' });
    socket.destroy();
    expect((await served.server.ended).code).toBe(0);
  });

  it.skipIf(!haveAll('prlimit'))('says 503 while a job is in error', async () => {
    await using bench = new Bench();
    await makeChain(bench);
    const served = await cramped(bench, ...METRICS);
    limit(served, 2 * MIB);
    await served.execute('block-commit', { ...COMMIT, 'on-error': 'enospc' });
    await served.until('paused');
    expect(await get(bench, '/healthz')).toMatchObject({
      status: 503,
      text: "job 'c0' stopped on an error: nospace\n",
    });
    await served.execute('job-cancel', { id: 'c0' });
    await served.until('null');
    expect(await get(bench, '/healthz')).toMatchObject({ status: 200 });
    await served.execute('block-commit', { ...COMMIT, 'job-id': 'c1', 'auto-dismiss': false });
    await served.until('concluded');
    expect(await get(bench, '/healthz')).toMatchObject({
      status: 503,
      text: expect.stringMatching(/^job 'c1' failed: /),
    });
    await served.execute('job-dismiss', { id: 'c1' });
    await served.until('null');
    expect(await get(bench, '/healthz')).toMatchObject({ status: 200 });
  });

  it.skipIf(!haveAll('strace'))('says 503 once a flush has failed', async () => {
    await using bench = new Bench();
    await makeChain(bench);
    const { server } = await bench.disk('top.qcow2', ...METRICS);
    await using client = await connectNbd({ server: { path: bench.file('run/nbd.sock') } });
    // from now on no file of the server becomes durable
    const faults = ['-e', 'trace=fdatasync,fsync', '-e', 'inject=fdatasync,fsync:error=EIO'];
    const strace = bench.program('strace', '-f', '-o', 'trace', ...faults, '-p', `${server.pid}`);
    await strace.said(/attached/);
    await client.write(0, Buffer.alloc(512));
    await expect(client.flush()).rejects.toThrow();
    expect(await get(bench, '/healthz')).toMatchObject({
      status: 503,
      text: expect.stringMatching(/top\.qcow2: a flush failed: it takes no more changes\n$/),
    });
    if (!haveReader) return;
    expect(sampleOf(await scrape(bench), 'downfold_disk_failed', { node: 'disk' })).toBe(1);
    expect(sampleOf(await scrape(bench), 'downfold_healthy')).toBe(0);
  });
});
