import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { ctl, downfoldd, FakeServer, SILENCE } from './ctl-support.ts';
import { BIN, backingOf, bench, diskOf, launch, makeChain, start } from './support.ts';

/** What would command a terminal: a bell, a clear, a C1 control, a line of its own. */
const HOSTILE = 'x\x07\x1b[2J\n\x9b31m';
const QUIETED = 'x\\x07\\x1b[2J';

/** Text as a terminal may get it. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
const NO_CONTROLS = /^[^\u0000-\u0009\u000b-\u001f\u007f-\u009f]*$/;

describe('a server that cannot be reached is told of in one line that says what to do', () => {
  it.each([
    ['none named', [], 'DOWNFOLD_QMP'],
    ['none there', ['--socket', 'run/none'], 'is the server running?'],
    ['a file', ['--socket', 'unix:file'], 'is no socket'],
    ['a socket that its server left', ['--socket', 'stale'], 'start it again'],
    ['a time that is none', ['--socket', 'x', '--timeout', 'soon'], "Invalid timeout 'soon'"],
  ])('%s', async (_, args, what) => {
    using work = bench();
    writeFileSync(work.file('file'), '');
    const stale = 'require("net").createServer().listen("stale", () => process.exit())';
    if (args.includes('stale')) work.must(process.execPath, '-e', stale);
    const { code, stdout, stderr } = await start(work, 'ctl', ...args, 'jobs').ended;
    expect([code, stdout]).toEqual([1, '']);
    expect(stderr).toMatch(/^downfold: .*\n$/);
    expect(stderr).toContain(what);
  });

  it.skipIf(process.getuid?.() !== 0)('one of another user', async () => {
    using work = bench();
    await using _ = await FakeServer.in(work);
    work.must('chmod', '755', work.path);
    work.must('chmod', '600', 'q');
    const user = ['--reuid', '65534', '--clear-groups'];
    const args = ['ctl', '--socket', 'q', 'jobs'];
    const { code, stderr } = await launch(work, 'setpriv', ...user, process.execPath, BIN, ...args)
      .ended;
    expect([code, stderr]).toEqual([1, expect.stringContaining('(user id 0); be that user')]);
  });

  it('one that serves another client first', async () => {
    using work = bench();
    await using fake = await FakeServer.in(work);
    fake.greets = false;
    const { code, stderr } = await ctl(work, ['jobs', '--timeout', '0.3']).ended;
    expect([code, stderr]).toEqual([124, expect.stringContaining('serves one client at a time')]);
  });
});

describe('what a server says', () => {
  it('never commands a terminal', async () => {
    using work = bench();
    await using fake = await FakeServer.in(work);
    fake.jobs = [{ id: HOSTILE, type: HOSTILE, status: 'paused', error: HOSTILE }];
    fake.answers['query-named-block-nodes'] = () => [
      { 'node-name': HOSTILE, drv: HOSTILE, file: HOSTILE, ro: true, image: { 'virtual-size': 1 } },
    ];
    const asks = [['jobs'], ['nodes'], ['commit', 'no'], ['wait', 'no']];
    const seen = await Promise.all(
      [...asks, ['jobs', '--output', 'json']].map((args) => ctl(work, args).ended),
    );
    for (const { stdout, stderr } of seen.slice(0, -1)) {
      expect(stdout + stderr).toContain(QUIETED);
      expect(stdout + stderr).toMatch(NO_CONTROLS);
      // nor begins a line that seems to be another's
      expect(stdout + stderr).not.toMatch(/^\\x9b31m/m);
    }
    const json = seen.at(-1)?.stdout ?? '';
    expect(json).toMatch(NO_CONTROLS);
    expect(JSON.parse(json)).toMatchObject([{ id: HOSTILE, error: HOSTILE }]);
  });

  it('does not do so in events either', async () => {
    using work = bench();
    await using fake = await FakeServer.in(work);
    const watching = ctl(work, ['watch', '--count', '1', 'j']);
    await watching.said(/^downfold: watching/);
    fake.tell('other', { id: 'k' });
    fake.tell(HOSTILE, { id: 'j', text: HOSTILE, list: [HOSTILE] });
    const seen = await watching.ended;
    expect(seen).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(/^2023-11-14T22:13:20.005Z x\\x07.* id=j text=x\\x07.*\n$/),
    });
    expect(seen.stdout).toMatch(NO_CONTROLS);
  });

  it('ends when nobody reads its events any more', async () => {
    using work = bench();
    await using fake = await FakeServer.in(work);
    const pipe = `'${process.execPath}' '${BIN}' ctl --socket q watch | head -n 1`;
    const watching = launch(work, 'bash', '-c', pipe);
    await watching.said(/^downfold: watching/);
    const telling = setInterval(() => fake.tell('other', { id: 'k' }), 20);
    const { code, stdout } = await watching.ended;
    clearInterval(telling);
    expect([code, stdout.split('\n').length]).toEqual([0, 2]);
  });

  it('keeps its integers of 64 bits, in both directions', async () => {
    using work = bench();
    await using fake = await FakeServer.in(work);
    const wide = '18446744073709551615';
    const { rawJSON } = JSON as unknown as { readonly rawJSON: (text: string) => unknown };
    fake.answers['wide'] = () => rawJSON(wide);
    const request = `{"execute": "wide", "arguments": {"n": ${wide}}}`;
    expect(await ctl(work, ['raw', request]).ended).toEqual({
      code: 0,
      stdout: `${wide}\n`,
      stderr: '',
    });
    expect(fake.lastLine).toContain(`"n": ${wide}`);
  });
});

describe.concurrent('--wait', () => {
  /** Waits for job `j` at a server that does `then` once the client has looked at it. */
  async function waited(
    args: readonly string[],
    then: (fake: FakeServer) => void,
    job: object = {},
  ): Promise<{ code: number | null; stdout: string; stderr: string; asked: readonly string[] }> {
    using work = bench();
    await using fake = await FakeServer.in(work);
    fake.jobs = [{ id: 'j', status: 'running', ...job }];
    const waiting = ctl(work, args);
    await Promise.race([waiting.said(/^commit: 1\.00 MiB of 4\.00 MiB \(25%\)$/m), waiting.ended]);
    then(fake);
    const ended = await waiting.ended;
    return { ...ended, asked: fake.asked.map(({ execute }) => execute) };
  }
  const over = (fake: FakeServer, event: string, error?: string): void => {
    fake.tell(event, { device: 'other', type: 'commit', error: 'not of this job' });
    fake.status('other', 'concluded', 'null');
    fake.tell(event, { device: 'j', type: 'commit', len: 9 << 20, offset: 9 << 20, error });
    fake.jobs = [];
    fake.status('j', 'concluded', 'null');
  };

  it.each<[string, number, RegExp, (fake: FakeServer) => void]>([
    [
      'completed',
      0,
      /^Job 'j' completed: 9\.00 MiB done\.\n$/,
      (fake) => over(fake, 'BLOCK_JOB_COMPLETED'),
    ],
    [
      'failed',
      1,
      /: job 'j' failed: No space left/,
      (fake) => over(fake, 'BLOCK_JOB_COMPLETED', 'No space left on device'),
    ],
    ['cancelled', 2, /: job 'j' was cancelled\n$/, (fake) => over(fake, 'BLOCK_JOB_CANCELLED')],
    [
      'ready',
      0,
      /^Job 'j' is ready,.*'downfold ctl complete j'/,
      (fake) => fake.status('j', 'ready'),
    ],
    [
      'pending',
      0,
      /^Job 'j' is done but for the switch: 'downfold ctl finalize j'/,
      (fake) => fake.tell('BLOCK_JOB_PENDING', { id: 'j' }),
    ],
    [
      'gone with the server',
      1,
      /: the server is gone while job 'j' was under way .*'--resume'/,
      (fake) => fake.cut(),
    ],
    [
      'gone without a word',
      1,
      /: job 'j' is not there any more, and the server did not tell/,
      (fake) => {
        fake.jobs = [];
      },
    ],
  ])('ends with a job that is %s, and exits with %i', async (_, code, says, then) => {
    const ended = await waited(['wait', 'j'], then);
    expect(ended.code).toBe(code);
    expect(code === 0 ? ended.stdout : ended.stderr).toMatch(says);
    expect(ended.asked).toEqual([]);
  });

  it('completes a job as soon as it is ready, and waits on', async () => {
    const ended = await waited(['complete', 'j', '--wait'], (fake) => {
      fake.answers['job-complete'] = () => over(fake, 'BLOCK_JOB_COMPLETED');
      fake.status('j', 'ready');
    });
    expect(ended).toMatchObject({ code: 0, asked: ['job-complete'] });
  });

  it('tells of a job that an error has stopped, once each time, and how it goes on', async () => {
    const said = await waited(['wait', 'j'], (fake) => {
      const error = { device: 'j', operation: 'write', action: 'stop' };
      fake.tell('BLOCK_JOB_ERROR', error);
      fake.tell('BLOCK_JOB_ERROR', error);
      fake.status('j', 'paused', 'running');
      fake.tell('BLOCK_JOB_ERROR', error);
      over(fake, 'BLOCK_JOB_COMPLETED');
    });
    expect(said.code).toBe(0);
    const notes = /a write failed, and job 'j' stands still: .*'downfold ctl resume j'/g;
    expect(said.stderr.match(notes)).toHaveLength(2);
  });

  it('is left when the time is up: the job goes on', async () => {
    const ended = await waited(['wait', 'j', '--timeout', '1'], () => {});
    expect(ended).toMatchObject({ code: 124, asked: [] });
    expect(ended.stderr).toMatch(
      /: the time is up, but job 'j' goes on in the server: 'downfold ctl wait j'/,
    );
  });

  it.each(['SIGINT', 'SIGTERM'] as const)('is left by %s: the job goes on', async (signal) => {
    using work = bench();
    await using fake = await FakeServer.in(work);
    fake.jobs = [{ id: 'j', status: 'running' }];
    const waiting = ctl(work, ['wait', 'j']);
    await waiting.said(/25%/);
    waiting.kill(signal);
    const { code, stderr } = await waiting.ended;
    expect(code).toBe(signal === 'SIGINT' ? 130 : 143);
    expect(stderr).toMatch(new RegExp(`: stopped by ${signal}, but job 'j' goes on in the server`));
    expect(fake.asked).toEqual([]);
  });

  it('is left before the server has answered, which may have started the job', async () => {
    using work = bench();
    await using fake = await FakeServer.in(work);
    const node = { 'node-name': 'd', drv: 'qcow2', file: '/d', ro: false, image: {} };
    fake.answers['query-named-block-nodes'] = () => [node];
    const asked = Promise.withResolvers<void>();
    fake.answers['block-commit'] = () => {
      asked.resolve();
      return SILENCE;
    };
    const waiting = ctl(work, ['commit', 'd', '--wait']);
    await asked.promise;
    waiting.kill('SIGINT');
    const { code, stderr } = await waiting.ended;
    expect([code, stderr]).toEqual([130, expect.stringContaining('the job may have started')]);
  });

  it('cancels the job at SIGINT with --or-cancel, and waits until it is gone', async () => {
    using work = bench();
    await using fake = await FakeServer.in(work);
    fake.jobs = [{ id: 'j', status: 'running' }];
    fake.answers['job-cancel'] = () => over(fake, 'BLOCK_JOB_CANCELLED');
    const waiting = ctl(work, ['wait', 'j', '--or-cancel']);
    await waiting.said(/25%/);
    waiting.kill('SIGINT');
    const { code, stderr } = await waiting.ended;
    expect([code, stderr]).toEqual([130, expect.stringContaining("job 'j' was cancelled")]);
    expect(fake.asked.at(-1)).toEqual({ execute: 'job-cancel', arguments: { id: 'j' } });
  });
});

it('a job that is not ready is not completed, with --keep least of all: it would be cancelled', async () => {
  using work = bench();
  await using fake = await FakeServer.in(work);
  fake.jobs = [{ id: 'j', status: 'running' }];
  const both = await Promise.all(
    [[], ['--keep']].map((more) => ctl(work, ['complete', 'j', ...more]).ended),
  );
  for (const { code, stderr } of both)
    expect([code, stderr]).toEqual([
      1,
      expect.stringContaining("'j' is not ready, but running; with --wait"),
    ]);
  expect(fake.asked).toEqual([]);
});

it('DOWNFOLD_QMP names the server, unless --socket does', async () => {
  using work = bench();
  await using _ = await FakeServer.in(work);
  const asked = (socket: string, ...more: readonly string[]) =>
    launch(work, 'env', `DOWNFOLD_QMP=${socket}`, process.execPath, BIN, 'ctl', 'jobs', ...more)
      .ended;
  const said = { code: 0, stdout: 'No jobs.\n', stderr: '' };
  expect(await Promise.all([asked('unix:q'), asked('none', '-s', 'q')])).toEqual([said, said]);
});

it('QMP is loaded by ctl alone', () => {
  using work = bench();
  const hook = `import { registerHooks } from 'node:module'; registerHooks({ load: (url, context, next) => {
    const loaded = next(url, context);
    if (String(loaded.source).includes('qmp_capabilities')) process.stderr.write('QMP IS LOADED');
    return loaded; } })`;
  const says = (...args: readonly string[]): string =>
    spawnSync(
      process.execPath,
      ['--import', `data:text/javascript,${encodeURIComponent(hook)}`, BIN, ...args],
      {
        cwd: work.path,
        encoding: 'utf8',
      },
    ).stderr;
  for (const args of [['--version'], ['commit', 'none'], ['ctl', '--help']])
    expect([args, says(...args)]).toEqual([args, expect.not.stringContaining('QMP IS LOADED')]);
  expect(says('ctl', 'jobs', '--socket', 'none')).toContain('QMP IS LOADED');
});

it('a commit beneath a disk that downfoldd serves: planned, waited for, done', async () => {
  using work = bench();
  await makeChain(work);
  const before = await diskOf(work, 'active.qcow2');
  await using served = await downfoldd(work, 'active.qcow2');
  const args = ['commit', 'disk', '--top', 'top.qcow2'];
  const plan = await ctl(work, [...args, '--plan'], served.socket).ended;
  expect(plan).toMatchObject({
    code: 0,
    stdout: expect.stringMatching(/^Plan: commit top\.qcow2 into base\.qcow2/),
  });
  expect(await backingOf(work, 'active.qcow2')).toBe('top.qcow2');
  const done = await ctl(work, [...args, '--wait', '--output', 'json'], served.socket).ended;
  expect(JSON.parse(done.stdout)).toEqual({
    id: 'commit-disk',
    type: 'commit',
    outcome: 'completed',
    error: null,
    moved: 4 << 20,
  });
  expect(done).toMatchObject({ code: 0, stderr: '' });
  expect(await backingOf(work, 'active.qcow2')).toBe('base.qcow2');
  served.server.kill('SIGTERM');
  expect((await served.server.ended).code).toBe(0);
  expect(await diskOf(work, 'active.qcow2')).toBe(before);
});
