import type { QmpEvent } from '@downfold/qmp';
import { printableText } from '../../ctl/say.ts';
import { type ServerOptions, withServer } from '../../ctl/server.ts';
import { print, printError, printJsonLine } from '../../output/print.ts';
import { interruption } from '../../signals.ts';

/** Options of `ctl watch`. */
export interface WatchOptions extends ServerOptions {
  /** End after as many events. */
  readonly count?: string;
}

/** `downfold ctl watch`: events as they come, a line each, of one job or of all; until Ctrl-C, the time is up, or the server goes. */
export async function watch(id: string | undefined, options: WatchOptions): Promise<number> {
  const most = options.count === undefined ? Number.POSITIVE_INFINITY : Number(options.count);
  return withServer(options, async (server) => {
    await using events = server.events();
    using stop = interruption('no longer watching');
    for (const signal of [stop.signal, server.deadline])
      signal?.addEventListener('abort', () => void events.return?.(), { once: true });
    if (options.quiet !== true) printError('downfold: watching; Ctrl-C ends it');
    let seen = 0;
    for await (const event of events) {
      if (id !== undefined && id !== (event.data?.['id'] ?? event.data?.['device'])) continue;
      if (options.output === 'json') printJsonLine(event);
      else print(lineOf(event));
      seen += 1;
      if (seen >= most) break;
    }
    return stop.exitCode ?? 0;
  });
}

const MICROSECONDS = 1000;

/** `2026-01-31T12:00:00.000Z JOB_STATUS_CHANGE id=c0 status=running`. */
function lineOf({ event, data = {}, timestamp }: QmpEvent): string {
  const { seconds, microseconds } = timestamp;
  const time = new Date(seconds * 1000 + microseconds / MICROSECONDS);
  const members = Object.entries(data).map(
    ([name, value]) => `${name}=${typeof value === 'string' ? value : JSON.stringify(value)}`,
  );
  return printableText([time.toISOString(), event, ...members].join(' '));
}
