import { type Command, InvalidArgumentError } from 'commander';
import type { Register } from '../../command.ts';

/** Declares `downfold ctl jobs`. */
export const jobs: Register = (ctl, act) => {
  ctl
    .command('jobs')
    .description('jobs: state, progress, speed, limit, time to go')
    .argument('[id]', 'only this one')
    .addHelpText(
      'before',
      `Examples:
  downfold ctl jobs
  downfold ctl jobs --output json commit-disk    figures: bytes, bytes a second, seconds
`,
    )
    .action((id: string | undefined, _: object, command: Command) =>
      act({ doing: 'show jobs' }, async () =>
        (await import('../../actions/ctl/jobs.ts')).jobs(id, command.optsWithGlobals()),
      ),
    );
};

/** Declares `downfold ctl nodes`. */
export const nodes: Register = (ctl, act) => {
  ctl
    .command('nodes')
    .description('layers of all disks: who stands on whom, who is served')
    .option('-a, --all', 'files and filters too')
    .addHelpText(
      'before',
      `Examples:
  downfold ctl nodes
  downfold ctl nodes --output json | jq '.[]."node-name"'
`,
    )
    .action((_: object, command: Command) =>
      act({ doing: 'show nodes' }, async () =>
        (await import('../../actions/ctl/nodes.ts')).nodes(command.optsWithGlobals()),
      ),
    );
};

/** Declares `downfold ctl watch`. */
export const watch: Register = (ctl, act) => {
  ctl
    .command('watch')
    .description('events as they come, until Ctrl-C; the end of --timeout is no failure')
    .argument('[id]', 'only those of this job or export')
    .option('-c, --count <number>', 'end after as many', countOf)
    .addHelpText(
      'before',
      `Examples:
  downfold ctl watch
  downfold ctl watch --output json --count 1 --timeout 60 commit-disk
`,
    )
    .action((id: string | undefined, _: object, command: Command) =>
      act({ doing: 'watch events' }, async () =>
        (await import('../../actions/ctl/watch.ts')).watch(id, command.optsWithGlobals()),
      ),
    );
};

/** Declares `downfold ctl raw`. */
export const raw: Register = (ctl, act) => {
  ctl
    .command('raw')
    .description('one QMP command as it is; prints what it returns')
    .argument('<request>', 'JSON with "execute" and "arguments", or the name of a command')
    .addHelpText(
      'before',
      `Examples:
  downfold ctl raw query-version
  downfold ctl raw '{"execute": "job-pause", "arguments": {"id": "commit-disk"}}'
`,
    )
    .action((request: string, _: object, command: Command) =>
      act({ doing: 'run the command' }, async () =>
        (await import('../../actions/ctl/raw.ts')).raw(request, command.optsWithGlobals()),
      ),
    );
};

function countOf(text: string): number {
  if (/^[1-9]\d{0,14}$/.test(text)) return Number(text);
  throw new InvalidArgumentError('give a number of events.');
}
