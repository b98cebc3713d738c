import { stripVTControlCharacters } from 'node:util';
import { describe, expect, it } from 'vitest';
import { ctl, downfoldd, haveStorageDaemon, storageDaemon } from './ctl-support.ts';
import {
  type Bench,
  BIN,
  backingOf,
  bench,
  type ChainSpec,
  diskOf,
  haveQemu,
  haveScript,
  launch,
  makeChain,
} from './support.ts';

/** Runs `downfold ctl ARGS`, which must exit with `code`; what it printed. */
type Told = (args: string, code?: number) => Promise<string>;

const toldBy =
  (work: Bench, socket: string): Told =>
  async (args, code = 0) => {
    const ended = await ctl(work, args.split(' '), socket).ended;
    expect([args, ended.code, ended.stderr]).toEqual([args, code, expect.anything()]);
    return code === 0 ? ended.stdout : ended.stderr;
  };

/** Other processes of the machine may be in the way. */
const eventually = <T>(look: () => Promise<T>): ReturnType<typeof expect.poll<T>> =>
  expect.poll(look, { timeout: 30_000, interval: 100 });

/** Long enough to be met at work: 4 MiB take 16 s. */
const SLOW = '--speed 256k';
/** 16 pieces to commit: more than there are commands that let a piece pass. */
const PIECES: ChainSpec = [
  { name: 'base', mebibytes: [] },
  { name: 'mid', mebibytes: [0, 2, 4, 6, 8, 10, 12, 14] },
  { name: 'top', mebibytes: [1, 3, 5, 7, 9, 11, 13, 15] },
  { name: 'active', mebibytes: [] },
];

describe('every command of ctl', () => {
  const commands =
    'jobs nodes commit stream snapshot wait pause resume speed complete cancel finalize dismiss watch raw';

  it.each(commands.split(' '))('%s has help that starts with examples', (command) => {
    using work = bench();
    const { code, stdout } = work.downfold('ctl', command, '--help');
    expect([code, stdout]).toEqual([0, expect.stringMatching(/^Examples:\n {2}downfold ctl /)]);
    expect(stdout).toContain(`Usage: downfold ctl ${command} `);
    expect(stdout).toContain('DOWNFOLD_QMP');
    for (const line of stdout.split('\n')) expect(line.length, line).toBeLessThanOrEqual(100);
  });

  it('that is none is told of, with what was meant', () => {
    using work = bench();
    const { code, stderr } = work.downfold('ctl', 'job');
    expect([code, stderr]).toEqual([1, "downfold: unknown command 'job' (Did you mean jobs?)\n"]);
  });
});

describe('at downfoldd', () => {
  it.skipIf(!haveScript)(
    'on a terminal --wait draws a bar, and leaves the line clean',
    async () => {
      using work = bench();
      await makeChain(work);
      await using served = await downfoldd(work, 'active.qcow2');
      const args = `ctl -s ${served.socket} commit disk --top top.qcow2 --speed 2M --wait`;
      // Node takes a terminal of a CI machine for one without colours
      const command = `stty cols 80; unset CI; TERM=xterm exec '${process.execPath}' '${BIN}' ${args}`;
      const { stdout } = await launch(work, 'script', '-qec', command, '/dev/null').ended;
      expect(stdout).toMatch(/commit {3}.*━+.*\d+% {2}\d.*iB of 4\.00 MiB {2}\d.*iB\/s/);
      expect(stdout).toContain("\r\x1b[2KJob 'commit-disk' completed: 4.00 MiB done.\r\n");
      for (const line of stripVTControlCharacters(stdout).split(/[\r\n]+/))
        expect(line.length, line).toBeLessThanOrEqual(80);
    },
  );

  it('a job is seen, slowed, paused, gone on with and cancelled; the chain is as it was', async () => {
    using work = bench();
    await makeChain(work, PIECES, 16);
    await using served = await downfoldd(work, 'active.qcow2');
    const told = toldBy(work, served.socket);
    expect(await told(`commit disk --top top.qcow2 ${SLOW} --no-auto-dismiss`)).toMatch(
      /^Job 'commit-disk' started/,
    );
    const [job] = JSON.parse(await told('jobs --output json'));
    expect(job).toMatchObject({
      id: 'commit-disk',
      type: 'commit',
      status: 'running',
      'total-progress': 16 << 20,
      speed: 256 << 10,
      throughput: expect.any(Number),
    });
    expect(await told('pause nope', 1)).toMatch(/no job 'nope'; there are: commit-disk\n$/);
    expect(await told('pause commit-disk', 0)).toContain('pauses');
    await eventually(() => told('jobs')).toMatch(
      /^JOB .*\ncommit-disk +commit +paused +.* 256 KiB\/s/,
    );
    expect(await told('pause commit-disk', 1)).toContain('already paused');
    await told('resume commit-disk');
    await told('speed commit-disk 128k');
    const [slower] = JSON.parse(await told('jobs commit-disk --output json'));
    expect(slower).toMatchObject({ speed: 128 << 10 });
    expect(await told('stream disk', 1)).toContain("(job 'commit-disk')");
    expect(await told('cancel commit-disk --wait')).toContain('was cancelled');
    expect(await told('wait commit-disk', 2)).toContain('was cancelled');
    await told('dismiss commit-disk');
    expect(await told('jobs')).toBe('No jobs.\n');
    expect(await backingOf(work, 'active.qcow2')).toBe('top.qcow2');
  });

  it('a commit of the active layer waits until it is ready, and pivots; nodes show it', async () => {
    using work = bench();
    await makeChain(work);
    const before = await diskOf(work, 'active.qcow2');
    await using served = await downfoldd(work, 'active.qcow2');
    const told = toldBy(work, served.socket);
    expect(await told('nodes')).toMatch(
      /^#base\.qcow2 {2}\(qcow2, .*read-only\).*\n└── #mid\.qcow2 .*\n {4}└── #top\.qcow2 .*\n {8}└── disk {2}\(qcow2, .*read-write, export disk\) {2}\/.*active\.qcow2\n$/,
    );
    expect(await told('commit disk --top top.qcow2 --pivot', 1)).toContain('active layer');
    expect(await told('commit disk --top mid.qcow2 --base mid.qcow2', 1)).toContain('itself');
    expect(await told('commit disk --wait --id j')).toMatch(/^Job 'j' is ready/);
    expect(await told('complete j --wait')).toMatch(/^Job 'j' completed/);
    expect(await told('nodes')).toMatch(/^#base\.qcow2 {2}\(.*export disk\)/m);
    served.server.kill('SIGTERM');
    await served.server.ended;
    expect(await diskOf(work, 'base.qcow2')).toBe(before);
  });

  it('snapshot, stream and keep; events in their order', async () => {
    using work = bench();
    await makeChain(work);
    const before = await diskOf(work, 'active.qcow2');
    await using served = await downfoldd(work, 'active.qcow2');
    const told = toldBy(work, served.socket);
    expect(await told('snapshot active.qcow2 new.qcow2')).toContain("(node 'new')");
    const watching = ctl(work, ['watch', '--output', 'json', '--count', '7', 's'], served.socket);
    await watching.said(/^downfold: watching/m);
    await told(`stream new --id s ${SLOW}`);
    await told('speed s 0');
    await watching.ended.then(({ code }) => expect(code).toBe(0));
    const states = (await watching.ended).stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(states.map(({ event, data }) => data.status ?? event)).toEqual(
      'created running waiting pending BLOCK_JOB_COMPLETED concluded null'.split(' '),
    );
    expect(await backingOf(work, 'new.qcow2')).toBeUndefined();
    served.server.kill('SIGTERM');
    await served.server.ended;
    expect(await diskOf(work, 'new.qcow2')).toBe(before);
  });

  it('finalize switches what --no-auto-finalize held back; what fails tells the reason of the server', async () => {
    using work = bench();
    await makeChain(work);
    await using served = await downfoldd(work, 'active.qcow2');
    const told = toldBy(work, served.socket);
    const args = 'commit disk --top top.qcow2 --wait';
    const name = 'x'.repeat(1100);
    expect(await told(`${args} --backing-file ${name}`, 1)).toMatch(
      /job 'commit-disk' failed: .*room|bytes/,
    );
    expect(await told(`${args} --no-auto-finalize`)).toMatch(/'downfold ctl finalize commit-disk'/);
    expect(await backingOf(work, 'active.qcow2')).toBe('top.qcow2');
    expect(await told('finalize commit-disk --wait')).toMatch(/completed: 4\.00 MiB/);
    expect(await backingOf(work, 'active.qcow2')).toBe('base.qcow2');
    expect(await told('commit nope', 1)).toMatch(/no disk called 'nope'; there are: 'disk' \(/);
    expect(
      JSON.parse(
        (await ctl(work, ['commit', 'nope', '--output', 'json'], served.socket).ended).stdout,
      ),
    ).toMatchObject({
      error: { class: 'CTL_NO_NODE' },
    });
  });

  it('a server that ends while it is waited for leaves the journal; the next one goes on', async () => {
    using work = bench();
    await makeChain(work);
    const before = await diskOf(work, 'active.qcow2');
    {
      await using served = await downfoldd(work, 'active.qcow2');
      const waiting = ctl(
        work,
        `commit disk --top top.qcow2 --wait -p --output json --speed 1M`.split(' '),
        served.socket,
      );
      await waiting.said(/"done":[1-9]/);
      served.server.kill('SIGTERM');
      const { code, stderr } = await waiting.ended;
      expect([code, stderr]).toEqual([
        1,
        expect.stringMatching(/the server is gone while job .*'--resume'/),
      ]);
      await served.server.ended;
    }
    await using again = await downfoldd(work, '--resume', 'active.qcow2');
    await eventually(() => backingOf(work, 'active.qcow2')).toBe('base.qcow2');
    await eventually(() => toldBy(work, again.socket)('jobs')).toBe('No jobs.\n');
    again.server.kill('SIGTERM');
    await again.server.ended;
    expect(await diskOf(work, 'active.qcow2')).toBe(before);
  });
});

describe.skipIf(!haveQemu || !haveStorageDaemon)("at QEMU's own storage daemon", () => {
  const NAMES = ['base', 'mid', 'top', 'active'] as const;

  /** What `qemu-img` says that an image stands on. */
  const backing = (work: Bench, name: string): string | undefined =>
    JSON.parse(work.must('qemu-img', 'info', '-U', '--output=json', name))['backing-filename'];

  it('layers are found by file, committed, watched to the end; what is left is what QEMU makes', async () => {
    using work = bench();
    await makeChain(work);
    work.must('qemu-img', 'convert', '-O', 'raw', 'active.qcow2', 'before.raw');
    await using qemu = await storageDaemon(work, ...NAMES);
    const told = toldBy(work, qemu.socket);
    expect(await told('nodes')).toMatch(
      /^base .*\n└── mid .*\n {4}└── top .*\n {8}└── active {2}\(qcow2, .*\n$/,
    );
    expect(await told('commit active --top top.qcow2 --plan', 1)).toContain(
      "Parameter '--plan' is unexpected: only downfoldd knows it",
    );
    expect(await told(`commit active --top top.qcow2 ${SLOW} --id c`)).toContain("'c' started");
    expect(JSON.parse(await told('jobs --output json'))).toMatchObject([
      { id: 'c', status: 'running', speed: 256 << 10 },
    ]);
    await told('pause c');
    await eventually(() => told('jobs')).toMatch(/^c +commit +paused/m);
    await told('resume c');
    expect(await told('wait c --timeout 1', 124)).toContain("job 'c' goes on in the server");
    await told('speed c 0');
    await eventually(() => told('jobs')).toBe('No jobs.\n');
    expect(backing(work, 'active.qcow2')).toBe('base.qcow2');
    expect(await told('commit active --pivot')).toMatch(/^Job 'commit-active' completed/);
    qemu.server.kill('SIGTERM');
    await qemu.server.ended;
    work.must('qemu-img', 'compare', '-f', 'qcow2', '-F', 'raw', 'base.qcow2', 'before.raw');
  });

  it('kept, finalized, cancelled; a snapshot; a second client is told why it is not served', async () => {
    using work = bench();
    await makeChain(work);
    work.must('qemu-img', 'convert', '-O', 'raw', 'active.qcow2', 'before.raw');
    await using qemu = await storageDaemon(work, ...NAMES);
    const told = toldBy(work, qemu.socket);
    expect(await told('commit active --wait --timeout 2 --or-cancel --speed 64k', 124)).toContain(
      "job 'commit-active' was cancelled",
    );
    expect(await told('commit active --keep --no-auto-dismiss')).toContain('completed');
    expect(await told('wait commit-active')).toContain('completed');
    await told('dismiss commit-active');
    expect(backing(work, 'active.qcow2')).toBe('top.qcow2');
    await told('snapshot active new.qcow2');
    expect(backing(work, 'new.qcow2')).toBe('active.qcow2');
    expect(await told('stream new --base base --wait --no-auto-finalize')).toContain(
      "'downfold ctl finalize stream-new'",
    );
    const watching = ctl(work, ['watch'], qemu.socket);
    await watching.said(/^downfold: watching/m);
    expect(await told('jobs --timeout 0.5', 124)).toContain('serves one client at a time');
    watching.kill('SIGINT');
    expect((await watching.ended).code).toBe(130);
    expect(await told('finalize stream-new --wait')).toContain('completed');
    expect(backing(work, 'new.qcow2')).toBe('base.qcow2');
    qemu.server.kill('SIGTERM');
    await qemu.server.ended;
    for (const image of ['base', 'new'])
      work.must('qemu-img', 'compare', '-f', 'qcow2', '-F', 'raw', `${image}.qcow2`, 'before.raw');
  });
});
