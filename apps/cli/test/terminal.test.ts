import { stripVTControlCharacters } from 'node:util';
import { describe, expect, it } from 'vitest';
import { type Bench, BIN, bench, haveScript, makeChain } from './support.ts';

/** Runs `downfold ARGS` on a terminal of 80 columns; resolves with what the terminal got. */
function onTerminal(work: Bench, variables: string, ...args: readonly string[]): string {
  // Node takes a terminal of a CI machine for one without colours
  const command = `stty cols 80; unset CI; ${variables} TERM=xterm exec '${process.execPath}' '${BIN}' ${args.join(' ')}`;
  return work.must('script', '-qec', command, '/dev/null');
}

const COMMIT = ['commit', '-b', 'base.qcow2', '--top', 'top.qcow2', 'active.qcow2'];

describe.skipIf(!haveScript)('on a terminal', () => {
  it('a commit draws a bar with rate, and leaves the line clean', async () => {
    using work = bench();
    await makeChain(work);
    const text = onTerminal(work, '', ...COMMIT, '-r', '8M');
    expect(text).toMatch(/copy {5}.*━+.*\d+% {2}\d.*iB of 4\.00 MiB {2}\d.*iB\/s/);
    expect(text).toContain('\x1b[36m');
    expect(text).toContain('\r\x1b[2KImage committed.\r\n');
    expect(text).not.toMatch(/\/100%\)/);
  });

  it('no line of a bar is wider than the terminal', async () => {
    using work = bench();
    await makeChain(work);
    const text = onTerminal(work, '', ...COMMIT, '-r', '8M');
    for (const line of stripVTControlCharacters(text).split(/[\r\n]+/))
      expect(line.length, line).toBeLessThanOrEqual(80);
  });

  it('-q draws nothing', async () => {
    using work = bench();
    await makeChain(work);
    expect(onTerminal(work, '', ...COMMIT, '-q')).toBe('');
  });

  it('NO_COLOR takes the colours away and leaves the bar', async () => {
    using work = bench();
    await makeChain(work);
    const text = onTerminal(work, 'NO_COLOR=1', ...COMMIT, '-r', '8M');
    expect(text).toContain('━');
    // the line is still cleared, which is no colour
    expect(text.replaceAll('\x1b[2K', '')).not.toContain('\x1b');
  });

  it('the plan has colours; in a pipe it has none', async () => {
    using work = bench();
    await makeChain(work);
    expect(onTerminal(work, '', ...COMMIT, '--dry-run')).toContain('\x1b[1mPlan');
    expect(onTerminal(work, 'NO_COLOR=1', ...COMMIT, '--dry-run')).not.toContain('\x1b[1m');
    expect(work.downfold(...COMMIT, '--dry-run').stdout).not.toContain('\x1b');
  });
});
