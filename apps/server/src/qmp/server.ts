import type { JobEvent } from '@downfold/job';
import { type Command, type Commands, command, QmpServer } from '@downfold/qmp';
import { codeOf, type Log, lineOf } from '../log.ts';
import { VERSION } from '../version.ts';
import { blockJobCommands } from './commands/block-jobs.ts';
import { exportCommands } from './commands/exports.ts';
import { jobCommands } from './commands/job-verbs.ts';
import { journalCommands } from './commands/journals.ts';
import { nodeCommands } from './commands/nodes.ts';
import { objectCommands } from './commands/objects.ts';
import { snapshotCommands } from './commands/snapshots.ts';
import { statsCommands } from './commands/stats.ts';
import type { ServerParts } from './context.ts';
import { events, type ServerEvents } from './events.ts';

/** Everything that can be asked of the server, by name. */
function commandsOf(parts: ServerParts): Commands {
  return {
    ...blockJobCommands(parts),
    ...jobCommands(parts.jobs.jobs),
    ...journalCommands(parts),
    ...nodeCommands(parts),
    ...snapshotCommands(parts),
    ...exportCommands(parts),
    ...objectCommands(parts),
    ...statsCommands(parts),
    quit: command({
      about: 'Ends the server: jobs stop at a consistent point, what clients wrote is flushed.',
      run: () => parts.quit(),
    }) as Command,
  };
}

/** The QMP server. The version is QEMU's, whose commands these are. */
export function qmpServer(parts: ServerParts, log: Log): QmpServer<ServerEvents> {
  return new QmpServer({
    version: {
      qemu: { major: 7, minor: 2, micro: 0 },
      package: `downfoldd ${VERSION}`,
    },
    commands: commandsOf(parts),
    events,
    onFault: (fault, name) => log.error(`QMP: ${name}: ${lineOf(fault)}`, codeOf(fault)),
  });
}

/** Tells sessions of what happens to a job. */
export function tellOf({ event, data }: JobEvent, server: QmpServer<ServerEvents>): void {
  // each event goes with its own data
  switch (event) {
    case 'JOB_STATUS_CHANGE':
      server.emit(event, data);
      return;
    case 'BLOCK_JOB_COMPLETED':
      server.emit(event, data);
      return;
    case 'BLOCK_JOB_PENDING':
      server.emit(event, data);
      return;
    case 'BLOCK_JOB_ERROR':
      server.emit(event, data);
      return;
    default:
      server.emit(event, data);
  }
}
