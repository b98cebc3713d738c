import { styleText } from 'node:util';
import { formatBytes } from '@downfold/chain';
import { twoDecimals } from './bytes.ts';
import { printError } from './print.ts';
import { stderr } from './streams.ts';

/** Where a job is. Bytes, but images in the phases `check` and `relink`. */
export interface Progress {
  readonly phase: string;
  readonly done: number;
  readonly total: number;
}

/** Shows progress until `end`, which leaves the line clean; `whole`: all was done. */
export interface ProgressDisplay {
  show(progress: Progress): void;
  end(whole: boolean): void;
}

/** What the user asked for. */
export interface ProgressWishes {
  readonly progress?: boolean | undefined;
  readonly quiet?: boolean | undefined;
  readonly json: boolean;
  /** In a pipe lines of text, with or without `-p`. */
  readonly lines?: boolean;
}

const REDRAW_MILLISECONDS = 100;
const BAR_CELLS = 20;
const nothing: ProgressDisplay = { show: () => {}, end: () => {} };

/**
 * On a terminal a bar; in a pipe, only with `-p`, qemu-img's `    (12.34/100%)`, or with `--output json` one JSON object a line,
 * with `lines` a line of text now and then. SIGUSR1 asks for one line in any case. All on stderr: stdout carries results only.
 */
export function progressDisplay({
  progress,
  quiet,
  json,
  lines = false,
}: ProgressWishes): ProgressDisplay {
  const tell = json ? tellJson : tellPercent;
  if (quiet === true) return asked(nothing, tell);
  if (json) return asked(progress === true ? paced(jsonLines()) : nothing, tell);
  // a bar has said it already
  if (stderr().isTTY && process.env['TERM'] !== 'dumb') return paced(bar());
  if (lines) return asked(textLines(), tell);
  return asked(progress === true ? paced(percentages()) : nothing, tell);
}

/** Tells also on SIGUSR1, as qemu-img does, quiet or not. The launcher keeps that signal from Node's debugger. */
function asked(display: ProgressDisplay, tell: (progress: Progress) => void): ProgressDisplay {
  let last: Progress = { phase: 'copy', done: 0, total: 1 };
  const listener = (): void => tell(last);
  process.on('SIGUSR1', listener);
  return {
    show: (progress) => {
      if (!COUNTING.includes(progress.phase)) last = progress;
      display.show(progress);
    },
    end: (whole) => {
      process.off('SIGUSR1', listener);
      display.end(whole);
    },
  };
}

const tellJson = (progress: Progress): void => printError(JSON.stringify({ progress }));

const tellPercent = (progress: Progress): void => printError(qemuPercent(fractionOf(progress)));

/** As qemu-img shows how much is done. */
function qemuPercent(fraction: number): string {
  return `    (${twoDecimals(fraction * 100)}/100%)`;
}

/** At most ten times a second, and always the last state. */
function paced(display: ProgressDisplay): ProgressDisplay {
  let [drawn, pending]: [number, Progress | null] = [0, null];
  return {
    show: (progress) => {
      pending = progress;
      const now = performance.now();
      if (now - drawn < REDRAW_MILLISECONDS) return;
      drawn = now;
      pending = null;
      display.show(progress);
    },
    end: (whole) => {
      if (pending !== null) display.show(pending);
      display.end(whole);
    },
  };
}

function fractionOf({ done, total }: Pick<Progress, 'done' | 'total'>): number {
  return total === 0 ? 1 : Math.min(1, done / total);
}

/** Phases that are the work itself; the others last a moment, and would send the figure back to 0. */
const WORK: readonly string[] = ['copy', 'compare'];

function percentages(): ProgressDisplay {
  let last: string | null = null;
  const write = (fraction: number): void => {
    const text = qemuPercent(fraction);
    if (text !== last) stderr().write(`${text}\r`);
    last = text;
  };
  return {
    show: (progress) => {
      if (WORK.includes(progress.phase)) write(fractionOf(progress));
    },
    end: (whole) => {
      if (whole) write(1);
      stderr().write('\n');
    },
  };
}

function jsonLines(): ProgressDisplay {
  return { show: tellJson, end: () => {} };
}

const LINE_MILLISECONDS = 10_000;

/** A line when the phase changes, and every ten seconds. */
function textLines(): ProgressDisplay {
  let last = { phase: '', at: 0 };
  return {
    show: (progress) => {
      const { phase, done, total } = progress;
      const now = performance.now();
      if (last.phase === phase && now - last.at < LINE_MILLISECONDS) return;
      last = { phase, at: now };
      printError(`${phase}: ${formatBytes(done)} of ${formatBytes(total)} (${percent(progress)})`);
    },
    end: () => {},
  };
}

/** A bar on one line, drawn anew for each phase. */
function bar(): ProgressDisplay {
  let start = { phase: '', at: 0, done: 0 };
  return {
    show: (progress) => {
      // what an interrupted run had done already does not count for the rate
      if (start.phase !== progress.phase)
        start = { phase: progress.phase, at: performance.now(), done: progress.done };
      const seconds = (performance.now() - start.at) / 1000;
      const rate = seconds > 0 ? (progress.done - start.done) / seconds : 0;
      stderr().write(`\r\x1b[2K${barLine(progress, rate)}`);
    },
    end: () => {
      stderr().write('\r\x1b[2K');
    },
  };
}

/** Phases that count images, not bytes. */
const COUNTING: readonly string[] = ['check', 'relink'];

function barLine(progress: Progress, rate: number): string {
  const { phase, done, total } = progress;
  const fraction = fractionOf(progress);
  const full = Math.floor(fraction * BAR_CELLS);
  const filled = styleText('cyan', '━'.repeat(full), { stream: stderr() });
  const empty = styleText('dim', '─'.repeat(BAR_CELLS - full), { stream: stderr() });
  const figures = COUNTING.includes(phase)
    ? `${done}/${total} images`
    : `${formatBytes(done)} of ${formatBytes(total)}  ${formatBytes(rate)}/s`;
  const eta =
    rate > 0 && done < total && !COUNTING.includes(phase)
      ? `  ETA ${clock((total - done) / rate)}`
      : '';
  const room = Math.max(0, (stderr().columns ?? 80) - 1 - BAR_CELLS - 15);
  return `${phase.padEnd(8)} ${filled}${empty} ${percent(progress).padStart(4)}  ${`${figures}${eta}`.slice(0, room)}`;
}

/** `42%`. */
export function percent(progress: Pick<Progress, 'done' | 'total'>): string {
  return `${Math.floor(fractionOf(progress) * 100)}%`;
}

/** `1:05`, of seconds. */
export function clock(seconds: number): string {
  const whole = Math.ceil(seconds);
  return `${Math.floor(whole / 60)}:${(whole % 60).toString().padStart(2, '0')}`;
}
