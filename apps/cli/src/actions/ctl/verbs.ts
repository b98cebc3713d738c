import { CtlError } from '../../ctl/errors.ts';
import { findJob, type JobRow } from '../../ctl/jobs.ts';
import { say } from '../../ctl/say.ts';
import { type Server, type ServerOptions, withServer } from '../../ctl/server.ts';
import { endReady, type WaitOptions, type WaitWish, waitFor } from '../../ctl/wait.ts';
import { parseBytes } from '../../output/bytes.ts';

/** Options of `ctl complete`. */
export interface CompleteOptions extends WaitOptions {
  readonly keep?: boolean;
}

/** Options of `ctl cancel`. */
export interface CancelOptions extends WaitOptions {
  readonly force?: boolean;
}

/** `downfold ctl pause`. */
export function pause(id: string, options: ServerOptions): Promise<number> {
  return simply(id, options, `Job '${id}' pauses at its next piece.`, (server) =>
    server.execute('job-pause', { id }),
  );
}

/** `downfold ctl resume`. */
export function resume(id: string, options: ServerOptions): Promise<number> {
  return simply(id, options, `Job '${id}' goes on.`, (server) =>
    server.execute('job-resume', { id }),
  );
}

/** `downfold ctl speed`. */
export function speed(id: string, rate: string, options: ServerOptions): Promise<number> {
  const bytes = parseBytes(rate, 'rate');
  const limit = bytes === 0 ? 'without a limit' : `at no more than ${rate} a second`;
  return simply(id, options, `Job '${id}' goes on ${limit}.`, (server) =>
    server.execute('block-job-set-speed', { device: id, speed: bytes }),
  );
}

/** `downfold ctl dismiss`. */
export function dismiss(id: string, options: ServerOptions): Promise<number> {
  return simply(id, options, `Job '${id}' is forgotten.`, (server) =>
    server.execute('job-dismiss', { id }),
  );
}

/** `downfold ctl finalize`. */
export function finalize(id: string, options: WaitOptions): Promise<number> {
  return ending(id, options, {
    saying: `Job '${id}' switches what others see.`,
    wish: () => ({ stopAt: [] }),
    act: (server) => server.execute('job-finalize', { id }),
  });
}

/** `downfold ctl complete`: base becomes the disk, or with `--keep` stays a copy of this moment. */
export function complete(id: string, options: CompleteOptions): Promise<number> {
  const how = options.keep === true ? 'keep' : 'pivot';
  return ending(id, options, {
    saying:
      how === 'pivot'
        ? `Job '${id}' ends: base becomes the disk.`
        : `Job '${id}' ends: base stays a copy of the disk as it is now.`,
    wish: () => ({ stopAt: ['pending'], ending: how }),
    act: async (server, job) => {
      // while waiting it is done once the job is ready
      if (options.wait === true) return;
      // before that QEMU takes a soft cancel for a hard one
      if (job.ready !== true)
        throw new CtlError(
          'CTL_NOT_READY',
          `job '${id}' is not ready, but ${job.status}; with --wait it is completed as soon as it is`,
          { job: id, status: job.status },
        );
      await endReady(server, id, how);
    },
  });
}

/** `downfold ctl cancel`: a job that is ready ends with base a copy, any other is given up; with `--force` at once. */
export function cancel(id: string, options: CancelOptions): Promise<number> {
  const isSoft = (job: JobRow): boolean => options.force !== true && job.ready === true;
  return ending(id, options, {
    saying: `Job '${id}' is being cancelled.`,
    wish: (job) => ({ stopAt: isSoft(job) ? ['pending'] : [], cancelling: true }),
    act: async (server, job) => {
      if (isSoft(job)) await endReady(server, id, 'keep');
      else await server.execute('job-cancel', { id });
    },
  });
}

/** `downfold ctl wait`: for a job that somebody else started. */
export function wait(id: string, options: WaitOptions): Promise<number> {
  return ending(
    id,
    { ...options, wait: true },
    { saying: '', wish: () => ({}), act: async () => {} },
  );
}

/** One command about one job. */
function simply(
  id: string,
  options: ServerOptions,
  saying: string,
  act: (server: Server) => Promise<unknown>,
): Promise<number> {
  return withServer(options, async (server) => {
    await findJob(server, id);
    await act(server);
    say(options, { id }, [saying]);
    return 0;
  });
}

/** One command that may end a job, and with `--wait` its end. */
function ending(
  id: string,
  options: WaitOptions,
  how: {
    readonly saying: string;
    readonly wish: (job: JobRow) => WaitWish;
    readonly act: (server: Server, job: JobRow) => Promise<unknown>;
  },
): Promise<number> {
  return withServer(options, async (server) => {
    const job = await findJob(server, id);
    if (options.wait !== true) {
      await how.act(server, job);
      say(options, { id }, [how.saying]);
      return 0;
    }
    return waitFor(server, options, how.wish(job), async () => {
      await how.act(server, job);
      return id;
    });
  });
}
