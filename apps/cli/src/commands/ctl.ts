import { Option } from 'commander';
import type { Register } from '../command.ts';
import { output, quiet } from '../options.ts';
import { cancel, complete, finalize, wait } from './ctl/end.ts';
import { dismiss, pause, resume, speed } from './ctl/jobs.ts';
import { jobs, nodes, raw, watch } from './ctl/look.ts';
import { commit, snapshot, stream } from './ctl/start.ts';

const EXAMPLES = `Examples:
  downfold ctl --socket run/qmp.sock nodes       at 'downfoldd disk.qcow2 --qmp unix:run/qmp.sock'
  export DOWNFOLD_QMP=unix:run/qmp.sock          from here on it need not be said
  downfold ctl nodes                             the layers of the disk, and what they are called
  downfold ctl commit disk --top mid.qcow2 --plan
                                                 what it would do; nothing is written
  downfold ctl commit disk --top mid.qcow2 --wait
                                                 mid, and all below it, into the lowest layer
  downfold ctl commit disk --pivot               all layers into the lowest, which becomes the disk
  downfold ctl jobs                              how far, how fast, how long
  downfold ctl cancel commit-disk                give it up
`;

const EPILOG = `
DISK is a disk's node, or its file. Layers are called by node, by path, or by bare file name.
The server may be downfoldd, qemu-storage-daemon or QEMU; --strategy, --siblings and --plan are
downfoldd's alone. QEMU serves one client of a socket at a time.

Waiting: Ctrl-C, SIGTERM and the end of --timeout leave the job to the server, which goes on
with it; 'wait' waits again. With --or-cancel they cancel it, as virsh does, and Ctrl-C once
more leaves.

Exit codes:
  0    done; of what waits: the job completed, or is ready, or pending
  1    not done, or the job failed, or the server is gone; the line on stderr says which
  2    the job was cancelled
  124  the time of --timeout is up
  130, 143   left by SIGINT, SIGTERM
`;

/** In the order of the help. */
const COMMANDS: readonly Register[] = [
  jobs,
  nodes,
  commit,
  stream,
  snapshot,
  wait,
  pause,
  resume,
  speed,
  complete,
  cancel,
  finalize,
  dismiss,
  watch,
  raw,
];

/** Declares `downfold ctl`, whose options may stand before and after its commands. */
export const ctl: Register = (program, act) => {
  const command = program
    .command('ctl')
    .description('jobs of a running server (downfoldd, qemu-storage-daemon, QEMU): see, start, end')
    .addOption(
      new Option('-s, --socket <path>', "the server's QMP socket; 'unix:' may stand before it").env(
        'DOWNFOLD_QMP',
      ),
    )
    .option('--timeout <seconds>', 'wait no longer, for an answer or for a job')
    .addOption(output('json'))
    .addOption(quiet())
    .configureHelp({ showGlobalOptions: true })
    .addHelpText('before', EXAMPLES)
    .addHelpText('after', EPILOG);
  for (const register of COMMANDS) register(command, act);
};
