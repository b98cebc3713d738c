import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { perTier, seededRandom } from '@downfold/compliance';
import { describe, expect, it } from 'vitest';
import { copying, MIDDLE } from './stopped-job.ts';
import {
  type Bench,
  bench,
  diskOf,
  haveQemu,
  isClean,
  makeChain,
  makeImage,
  start,
  whileStill,
} from './support.ts';

const RACES = perTier({ quick: 4, ci: 200, long: 1000 });
const RACES_WITH_QEMU = perTier({ quick: 2, ci: 20, long: 200 });

/** QEMU with active.qcow2 open, as for a running machine, while `work` is done. */
async function withMachine<T>(place: Bench, work: () => Promise<T> | T): Promise<T> {
  const machine: ChildProcess = spawn('qemu-io', ['-f', 'qcow2', 'active.qcow2'], {
    cwd: place.path,
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  machine.stdin?.write('length\n');
  await once(machine.stdout as NodeJS.ReadableStream, 'data');
  try {
    return await work();
  } finally {
    machine.kill('SIGKILL');
    await once(machine, 'exit');
  }
}

describe.skipIf(!haveQemu)('beneath a running machine', () => {
  it.each([
    ['commit', ...MIDDLE],
    ['commit', '--dry-run', ...MIDDLE],
    ['commit', '-b', 'base.qcow2', '--top', 'mid.qcow2', 'top.qcow2'],
    ['stream', 'active.qcow2'],
    ['rebase', '-b', 'base.qcow2', '-F', 'qcow2', 'active.qcow2'],
    ['info', 'active.qcow2'],
    ['info', '--backing-chain', 'active.qcow2'],
    ['map', 'active.qcow2'],
    ['check', 'active.qcow2'],
    ['compare', 'active.qcow2', 'base.qcow2'],
  ])('%s %s is refused, naming who runs it, and changes nothing', async (...args) => {
    using work = bench();
    await makeChain(work);
    await withMachine(work, () => {
      const before = work.digest();
      const { code, stdout, stderr } = work.downfold(...args);
      expect(code).not.toBe(0);
      expect(stdout).toBe('');
      expect(stderr).toMatch(/is in use: qemu-io \(process \d+\)/);
      expect(work.digest()).toEqual(before);
    });
  });

  it.each([
    ['info', '-U', 'active.qcow2'],
    ['map', '-U', 'active.qcow2'],
    ['compare', '-U', 'active.qcow2', 'active.qcow2'],
    ['snapshot', '-l', '-U', 'active.qcow2'],
    // what is read only may be read
    ['info', 'base.qcow2'],
    ['map', 'top.qcow2'],
    ['check', 'mid.qcow2'],
    ['graph', '.'],
    ['commit', '--dry-run', '--lock', 'none', ...MIDDLE],
  ])('%s %s does', async (...args) => {
    using work = bench();
    await makeChain(work);
    await withMachine(work, () => {
      expect(work.downfold(...args)).toMatchObject({ code: 0, stderr: '' });
    });
  });
});

describe.skipIf(!haveQemu)('while a job runs', () => {
  it('QEMU opens none of its images to write, and reads none that loses its meaning', async () => {
    using work = bench();
    await makeChain(work, undefined, 8);
    const job = await copying(work, 'commit', ...MIDDLE);
    whileStill(job, () => {
      const open = (...args: readonly string[]): string =>
        work.run('qemu-io', '-f', 'qcow2', '-c', 'read -q 0 512', ...args).stderr;
      for (const name of ['base', 'mid', 'top', 'active'])
        expect(open(`${name}.qcow2`), name).toMatch(/Failed to get/);
      expect(open('-r', 'mid.qcow2')).toMatch(/Failed to get "consistent read" lock/);
      expect(open('-r', '-U', 'active.qcow2')).not.toMatch(/Failed to get "write"/);
      const other = work.downfold('check', 'base.qcow2');
      expect(other.stderr).toMatch(new RegExp(`is in use: \\S+ \\(process ${job.pid}\\)`));
    });
    expect((await job.ended).code).toBe(0);
    expect(work.run('qemu-io', '-f', 'qcow2', '-c', 'read -q 0 512', 'active.qcow2').code).toBe(0);
  });
});

/** Two overlays of one base, each of which holds the whole disk: base shows what one of them shows, or two have written to it. */
const RIVALS = ['one.qcow2', 'other.qcow2'] as const;

/** Makes them; resolves with what each shows. */
async function makeRivals(work: Bench, mebibytes: number): Promise<readonly string[]> {
  const whole = Array.from({ length: mebibytes }, (_, at) => at);
  await makeImage(work, 'base.qcow2', { layer: 1, held: [0], mebibytes, below: null });
  for (const [index, name] of RIVALS.entries())
    await makeImage(work, name, { layer: index + 2, held: whole, mebibytes, below: 'base.qcow2' });
  return Promise.all(RIVALS.map((name) => diskOf(work, name)));
}

/** Each has a journal of its own, so that only locks are between them. */
it(`of two committers never both write: ${RACES} races`, async () => {
  let won = 0;
  for (let race = 0; race < RACES; race++) {
    using work = bench();
    const shown = await makeRivals(work, 2);
    const ended = await Promise.all(
      RIVALS.map((name) => start(work, 'commit', '-d', '--invalidate-siblings', name).ended),
    );
    for (const { code, stderr } of ended)
      if (code !== 0)
        expect(stderr).toMatch(
          /is in use|still runs this job|is marked|changed since|another file/,
        );
    const winners = ended.flatMap(({ code }, index) => (code === 0 ? [index] : []));
    expect(winners.length, JSON.stringify(ended)).toBeLessThanOrEqual(1);
    won += winners.length;
    for (const winner of winners) expect(await diskOf(work, 'base.qcow2')).toBe(shown[winner]);
    expect(await isClean(work, 'base.qcow2')).toBe(true);
  }
  // two that meet may both be refused, but not always
  expect(won).toBeGreaterThan(0);
}, 600_000);

/** `qemu-img commit`, some time from now. */
async function commitByQemu(work: Bench, name: string, delay: number): Promise<number> {
  await sleep(delay);
  const child = spawn('qemu-img', ['commit', '-q', '-f', 'qcow2', '-d', name], {
    cwd: work.path,
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let said = '';
  child.stderr.on('data', (text) => {
    said += text;
  });
  const [code] = (await once(child, 'close')) as [number];
  if (code !== 0) expect(said).toMatch(/Failed to get (?:shared )?"[a-z ]+" lock/);
  return code;
}

it.skipIf(!haveQemu)(
  `of QEMU and us never both write at once: ${RACES_WITH_QEMU} races`,
  async () => {
    const random = seededRandom(1);
    const count = { both: 0, ours: 0, theirs: 0, neither: 0 };
    // how long a commit of ours takes: QEMU starts at any time of it
    let span = 1000;
    for (let race = 0; race < RACES_WITH_QEMU; race++) {
      using work = bench();
      const shown = await makeRivals(work, 8);
      const begin = performance.now();
      const mine = start(work, 'commit', '-d', '--invalidate-siblings', RIVALS[0]).ended;
      void mine.then(() => {
        span = performance.now() - begin;
      });
      const theirs = commitByQemu(work, RIVALS[1], random() * span);
      const [{ code, stderr }, code2] = await Promise.all([mine, theirs]);
      if (code !== 0) expect(stderr).toMatch(/is in use|changed since/);
      const [won, wonToo] = [code === 0, code2 === 0];
      count[won ? (wonToo ? 'both' : 'ours') : wonToo ? 'theirs' : 'neither'] += 1;
      // both: one after the other
      const found = await diskOf(work, 'base.qcow2');
      if (won || wonToo) expect([won ? shown[0] : '', wonToo ? shown[1] : '']).toContain(found);
      expect(await isClean(work, 'base.qcow2')).toBe(true);
    }
    console.info(`QEMU and us, ${RACES_WITH_QEMU} races: ${JSON.stringify(count)}`);
    // of many, some meet
    if (RACES_WITH_QEMU >= 40) expect(count.both).toBeLessThan(RACES_WITH_QEMU);
  },
  900_000,
);
