import { existsSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { type Bench, BIN, bench, diskOf, type Ended, haveQemu, makeChain } from './support.ts';

const COMMANDS =
  'info map check compare create convert dd resize measure snapshot bitmap amend commit stream rebase resume abort graph ctl demo'.split(
    ' ',
  );

describe('help', () => {
  it('starts with examples, names every command, and ends with exit codes', () => {
    using work = bench();
    for (const args of [[], ['--help'], ['help'], ['-h']]) {
      const { code, stdout } = work.downfold(...args);
      expect([args, code]).toEqual([args, 0]);
      expect(stdout.indexOf('Examples:')).toBeLessThan(stdout.indexOf('Usage:'));
      for (const command of COMMANDS) expect(stdout).toContain(`\n  ${command} `);
      expect(stdout).toContain('Exit codes:');
    }
  });

  it.each(COMMANDS)('of %s starts with examples', (command) => {
    using work = bench();
    const { code, stdout } = work.downfold(command, '--help');
    expect(code).toBe(0);
    expect(stdout).toMatch(new RegExp(`^Examples:\\n  downfold ${command}`));
    expect(stdout).toContain(`Usage: downfold ${command} `);
  });

  it('fits into 100 columns', () => {
    using work = bench();
    for (const args of [['--help'], ...COMMANDS.map((command) => [command, '--help'])])
      for (const line of work.downfold(...args).stdout.split('\n'))
        expect(line.length, line).toBeLessThanOrEqual(100);
  });
});

describe('version', () => {
  it.each([['--version'], ['-V'], ['version']])('%s', (argument) => {
    using work = bench();
    expect(work.downfold(argument)).toEqual({
      code: 0,
      stdout: expect.stringMatching(/^downfold version \d+\.\d+\.\d+\n$/),
      stderr: '',
    });
  });

  it('as JSON', () => {
    using work = bench();
    expect(work.json('version')).toMatchObject({ name: 'downfold', node: process.versions.node });
  });
});

describe('a failure', () => {
  it.each([
    [['comit'], "unknown command 'comit' (Did you mean commit?)"],
    [['commit', '--dry-rum', 'x'], "unknown option '--dry-rum' (Did you mean --dry-run?)"],
    [['commit'], "missing required argument 'file'"],
    [['info', '--output', 'xml', 'x'], 'Allowed choices are human, json.'],
    [['info', 'gone'], "Could not open 'gone': "],
    [['map', '.'], "Could not map '.': "],
    [['check', 'gone'], "Could not check 'gone': "],
    [['commit', 'gone'], "Could not commit 'gone': "],
    [['resume', 'gone'], "Could not resume the job of 'gone': "],
    [['graph', 'gone'], "Could not draw the graph of 'gone': "],
    [['create', '/gone/x', '1M'], "Could not create '/gone/x': "],
    [['info', 'no\nsuch\x1b[2Jfile'], 'no'],
  ])('of %j is one line, without a stack, exit code 1', (args, what) => {
    using work = bench();
    const { code, stdout, stderr } = work.downfold(...args);
    expect([code, stdout]).toEqual([1, '']);
    expect(stderr).toContain(what);
    // biome-ignore lint/suspicious/noControlCharactersInRegex: nothing may command the terminal
    expect(stderr).toMatch(/^downfold: [^\u0000-\u001f\u007f]*\n$/);
    expect(stderr).not.toContain('    at ');
  });

  it.each([
    [['info', 'gone'], 'STORAGE_NOT_FOUND'],
    [['create', 'x', 'huge'], 'USAGE'],
    [['comit'], 'USAGE'],
    [['commit', '--bogus', 'x'], 'USAGE'],
  ])('of %j with --output json is an object on stdout as well', (args, name) => {
    using work = bench();
    const { code, stdout, stderr } = work.downfold(...args, '--output', 'json');
    expect(code).toBe(1);
    const { error } = JSON.parse(stdout) as { error: { class: string; desc: string } };
    expect(error.class).toBe(name);
    expect(stderr).toBe(`downfold: ${error.desc}\n`);
  });

  it('shows its stack only when asked to', () => {
    using work = bench();
    const { stderr } = work.run('env', 'DOWNFOLD_DEBUG=1', process.execPath, BIN, 'info', 'gone');
    expect(stderr).toContain('    at ');
  });
});

describe('what is not there yet', () => {
  it.each([['serve']])('%s says so, and what does it meanwhile', (command) => {
    using work = bench();
    const { code, stderr } = work.downfold(command, '-x', 'some', '--thing');
    expect(code).toBe(1);
    expect(stderr).toMatch(
      new RegExp(`^downfold: '${command}' is not there yet: .*meanwhile .*\\n$`),
    );
  });
});

describe('an old Node', () => {
  const pretend =
    'data:text/javascript,Object.defineProperty(process,"versions",{value:{node:"20.1.0"}})';

  it.each([
    ['info', 1],
    ['compare', 2],
  ])('is named, in one line, by the exit code of %s that means failure', (command, exitCode) => {
    using work = bench();
    const { code, stderr } = work.run(process.execPath, '--import', pretend, BIN, command);
    expect(code).toBe(exitCode);
    expect(stderr).toMatch(/^downfold: needs Node\.js 24 or newer, and this is 20\.1\.0;.*\n$/);
  });
});

describe('a reader that goes away', () => {
  it('of the results ends the command without a word', async () => {
    using work = bench();
    await makeChain(work);
    const pipe = `'${process.execPath}' '${BIN}' --help | head -n 1; echo ":\${PIPESTATUS[0]}"`;
    const { stdout, stderr } = work.run('bash', '-c', pipe);
    expect(stdout).toMatch(/^Downfold folds.*\n:0\n$/);
    expect(stderr).toBe('');
  });

  it.skipIf(!haveQemu)('of what a change says does not end it half-way', () => {
    using work = bench();
    work.must('qemu-img', 'create', '-q', '-f', 'qcow2', 'disk.qcow2', '1M');
    work.must('qemu-img', 'bitmap', '--add', 'disk.qcow2', 'b');
    for (const change of ['resize disk.qcow2 +1M', 'amend -o size=3M --output json disk.qcow2']) {
      // the reader is gone before anything is said
      const pipe = `{ sleep 0.1; '${process.execPath}' '${BIN}' ${change}; echo $? > code; } | true`;
      work.run('bash', '-c', pipe);
      expect(readFileSync(work.file('code'), 'utf8')).toBe('0\n');
      expect(work.run('qemu-img', 'check', 'disk.qcow2').code, change).toBe(0);
      expect(work.must('qemu-img', 'info', 'disk.qcow2'), change).not.toMatch(/in-use/);
    }
  });

  it('of the progress does not end the job', async () => {
    using work = bench();
    await makeChain(work);
    const job = `'${process.execPath}' '${BIN}' commit -p -r 8M -b base.qcow2 active.qcow2 2> >(exec true)`;
    const { code, stdout } = work.run('bash', '-c', job);
    expect(code).toBe(0);
    expect(stdout).toMatch(/^Image committed\.\n/);
    expect(await diskOf(work, 'base.qcow2')).toBe(await diskOf(work, 'active.qcow2'));
    expect(Object.keys(work.digest())).not.toContain('active.qcow2.downfold');
  });
});

describe.skipIf(!existsSync('/dev/full'))('a full disk', () => {
  const run = (work: Bench, line: string): Ended =>
    work.run('bash', '-c', `'${process.execPath}' '${BIN}' ${line}`);
  const LOST = /^downfold: Could not print the result: .*ENOSPC.*\n$/;

  it.each([
    ['info active.qcow2', 1],
    ['info --output json active.qcow2', 1],
    ['map active.qcow2', 1],
    ['map --output json active.qcow2', 1],
    ['check --output json base.qcow2', 1],
    ['check base.qcow2', 0],
    ['measure -O raw active.qcow2', 1],
    ['compare base.qcow2 base.qcow2', 0],
    ['compare base.qcow2 mid.qcow2', 1],
    ['snapshot -l active.qcow2', 1],
    ['graph active.qcow2', 1],
    ['commit --dry-run -b base.qcow2 --top top.qcow2 active.qcow2', 1],
    ['create new.qcow2 1M', 0],
    ['--version', 1],
    ['info --help', 1],
  ])('behind the results of %s is told in a line, exit code %i', async (line, exitCode) => {
    using work = bench();
    await makeChain(work);
    expect(work.downfold('snapshot', '-c', 'one', 'active.qcow2').code).toBe(0);
    const { code, stderr } = run(work, `${line} >/dev/full`);
    expect([code, stderr]).toEqual([exitCode, expect.stringMatching(LOST)]);
  });

  it('behind results and progress does not end a job, nor change how it ended', async () => {
    using work = bench();
    await makeChain(work);
    const disk = await diskOf(work, 'active.qcow2');
    const full = '>/dev/full 2>/dev/full';
    expect(run(work, `convert -p -O qcow2 active.qcow2 copy ${full}`).code).toBe(0);
    expect(await diskOf(work, 'copy')).toBe(disk);
    expect(run(work, `commit -p -r 8M -b base.qcow2 active.qcow2 ${full}`).code).toBe(0);
    expect(await diskOf(work, 'base.qcow2')).toBe(disk);
    expect(run(work, `info gone ${full}`).code).toBe(1);
    expect(run(work, `compare base.qcow2 gone ${full}`).code).toBe(2);
  });

  it('that is met in the middle of a result is told too', async () => {
    using work = bench();
    await makeChain(work);
    // the limit lets a part be written, as a disk does that fills up
    const { code, stderr } = run(work, '--help >most');
    expect([code, stderr]).toEqual([0, '']);
    const limited = `trap '' XFSZ; ulimit -f 1; exec '${process.execPath}' '${BIN}' --help >some`;
    const cut = work.run('bash', '-c', limited);
    expect([cut.code, cut.stderr]).toEqual([
      1,
      expect.stringMatching(/Could not print the result/),
    ]);
  });
});
