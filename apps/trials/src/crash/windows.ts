import type { LogEntry } from '@downfold/storage-memory';

/**
 * Where the absence of a barrier can show: from the moment when its flush would have been over to the end of the next one of the same file
 * or directory, which makes up for it. Numbers of the log, as `CrashState.at`.
 */
export interface Window {
  readonly after: number;
  /** Inclusive. */
  readonly until: number;
}

/** The windows of a barrier's flushes in a log, from entry `from` on. */
export function windowsOf(log: readonly LogEntry[], barrier: string, from: number): Window[] {
  const windows: Window[] = [];
  for (const [after, entry] of log.entries()) {
    if (after < from || !('barrier' in entry) || entry.barrier !== barrier) continue;
    const next = log.findIndex(
      (later, index) =>
        index > after && 'barrier' in later && later.barrier !== barrier && isSame(entry, later),
    );
    windows.push({ after, until: next < 0 ? log.length : next });
  }
  return windows;
}

function isSame(a: LogEntry, b: LogEntry): boolean {
  if (a.kind === 'flush') return b.kind === 'flush' && a.inode === b.inode;
  return (
    a.kind === 'flush directory' && b.kind === 'flush directory' && a.directory === b.directory
  );
}
