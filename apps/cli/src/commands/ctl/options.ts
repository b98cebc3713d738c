import { Option } from 'commander';

/** `--wait`. */
export const waiting = (more = 'show its progress'): Option =>
  new Option('-w, --wait', `wait for the job's end, ${more}; the exit code tells how it ended`);

/** `--or-cancel`. */
export const orCancel = (): Option =>
  new Option('--or-cancel', 'at Ctrl-C, SIGTERM or the end of --timeout cancel the job');

/** `--id NAME`. */
export const jobId = (defaultId: string): Option =>
  new Option('--id <name>', `what the job is called; default: ${defaultId}`);

/** `--speed RATE`. */
export const speedLimit = (): Option =>
  new Option('--speed <rate>', 'bytes a second, such as 10M; default: no limit');

/** `--on-error POLICY`, QEMU's. */
export const onServerError = (): Option =>
  new Option(
    '--on-error <policy>',
    "after a failed read or write: report (fail; the default), stop (wait for 'resume'), ignore (try again), enospc (stop when there is no space)",
  ).choices(['report', 'stop', 'ignore', 'enospc']);

/** `--backing-file NAME`. */
export const backingFile = (): Option =>
  new Option(
    '--backing-file <name>',
    'what the relinked image calls its backing file; not checked',
  );

/** `--plan`. */
export const plan = (): Option => new Option('--plan', 'print what it would do; do nothing');

/** `--no-auto-finalize`. */
export const noAutoFinalize = (): Option =>
  new Option('--no-auto-finalize', "wait for 'finalize' before others see a change");

/** `--no-auto-dismiss`. */
export const noAutoDismiss = (): Option =>
  new Option('--no-auto-dismiss', "keep the job for 'jobs' when it has ended, until 'dismiss'");
