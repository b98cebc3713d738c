import { fileURLToPath } from 'node:url';
import { foreignServer } from '@downfold/compliance';
import { describe, expect, it } from 'vitest';
import { fetched } from './foreign/guest.ts';
import { Bench, haveAll, MIB, makeChain } from './support.ts';

// QEMU's own QMP client drives this server and qemu-storage-daemon through the same steps: both have to tell the same, in the same order.

const haveClient = haveAll('qemu-storage-daemon', 'python3', 'apt-get', 'tar');
const DRIVE = fileURLToPath(new URL('foreign/drive.py', import.meta.url));

type Step = { readonly execute: string; readonly arguments?: object } | { readonly until: string };

/** What the client got. */
interface Session {
  readonly answers: readonly object[];
  readonly events: readonly { readonly event: string; readonly data: Record<string, unknown> }[];
}

const execute = (name: string, args?: object): Step =>
  args === undefined ? { execute: name } : { execute: name, arguments: args };
const until = (what: string): Step => ({ until: what });

const below = (more: object = {}): Step =>
  execute('block-commit', {
    'job-id': 'j',
    device: 'top',
    'top-node': 'mid',
    'base-node': 'base',
    ...more,
  });
const active = (more: object = {}): Step =>
  execute('block-commit', { 'job-id': 'j', device: 'top', 'base-node': 'mid', ...more });
const BY_HAND = { 'auto-finalize': false, 'auto-dismiss': false };
const id = { id: 'j' };
const device = { device: 'j' };

const SCENARIOS: Readonly<Record<string, readonly Step[]>> = {
  'a commit, which goes on by itself': [below(), until('null'), execute('query-jobs')],
  'a commit, each step by hand': [
    below(BY_HAND),
    until('pending'),
    execute('job-dismiss', id),
    execute('job-complete', id),
    execute('job-finalize', id),
    until('concluded'),
    execute('job-finalize', id),
    execute('job-pause', id),
    execute('job-dismiss', id),
    until('null'),
    execute('job-dismiss', id),
    execute('block-job-dismiss', { id: 'j' }),
  ],
  'a commit that is stopped for a while': [
    below({ speed: MIB / 4 }),
    execute('job-pause', id),
    until('paused'),
    execute('job-pause', id),
    execute('job-resume', id),
    until('running'),
    execute('job-resume', id),
    execute('block-job-set-speed', { ...device, speed: 0 }),
    until('null'),
  ],
  'a commit that is cancelled': [
    below({ speed: MIB / 4 }),
    execute('job-complete', id),
    execute('block-job-cancel', device),
    until('null'),
    execute('block-job-cancel', device),
  ],
  'a commit that is cancelled while it is pending': [
    below(BY_HAND),
    until('pending'),
    execute('job-cancel', id),
    until('concluded'),
    execute('job-dismiss', id),
    until('null'),
  ],
  'a commit of the active layer': [
    active(),
    until('BLOCK_JOB_READY'),
    execute('job-complete', id),
    until('null'),
  ],
  'a commit of the active layer, each step by hand': [
    active(BY_HAND),
    until('BLOCK_JOB_READY'),
    execute('job-finalize', id),
    execute('block-job-complete', device),
    until('pending'),
    execute('block-job-finalize', { id: 'j' }),
    execute('block-job-dismiss', { id: 'j' }),
    until('null'),
  ],
  'a commit of the active layer that is stopped while it is ready': [
    active(),
    until('BLOCK_JOB_READY'),
    execute('block-job-pause', device),
    until('standby'),
    execute('block-job-resume', device),
    until('ready'),
    execute('job-complete', id),
    until('null'),
  ],
  'a commit of the active layer that is to end while it is stopped': [
    active(),
    until('BLOCK_JOB_READY'),
    execute('block-job-pause', device),
    until('standby'),
    execute('block-job-cancel', device),
    execute('job-complete', id),
    execute('query-jobs'),
    execute('job-resume', id),
    until('null'),
  ],
  'a commit of the active layer that ends as a copy': [
    active(),
    until('BLOCK_JOB_READY'),
    execute('block-job-cancel', device),
    until('null'),
  ],
  'a commit of the active layer that is cancelled by force': [
    active(),
    until('BLOCK_JOB_READY'),
    execute('block-job-cancel', { ...device, force: true }),
    until('null'),
  ],
  'a stream': [
    execute('block-stream', { 'job-id': 'j', device: 'top', 'base-node': 'base' }),
    until('null'),
  ],
};

/** What is to be the same: all but how a server counts what it moves. */
function compared({ answers, events }: Session): Session {
  return {
    answers,
    events: events.map(({ event, data: { len, offset, ...data } }) => ({
      event,
      data: len === undefined ? data : { ...data, isWhole: len === offset },
    })),
  };
}

/** What both take: three nodes, and a socket. */
const optionsIn = (bench: Bench): readonly string[] => [
  ...['base', 'mid', 'top'].flatMap((name, index, names) => [
    '--blockdev',
    `file,node-name=${name}-file,filename=${bench.file(`${name}.qcow2`)}`,
    '--blockdev',
    `qcow2,node-name=${name},file=${name}-file${index === 0 ? '' : `,backing=${names[index - 1]}`}`,
  ]),
  ...['--chardev', `socket,id=c,path=${bench.file('qmp.sock')},server=on,wait=off`],
  ...['--monitor', 'c'],
];

/** Drives a server on a new chain. */
async function session(
  server: 'ours' | 'theirs',
  modules: string,
  steps: readonly Step[],
): Promise<Session> {
  await using bench = new Bench();
  await makeChain(bench);
  const options = optionsIn(bench);
  await using stack = new AsyncDisposableStack();
  if (server === 'ours') await bench.serve(...options);
  else
    stack.use(
      await foreignServer({ path: bench.file('qmp.sock') }, 'qemu-storage-daemon', ...options),
    );
  const python = ['env', `PYTHONPATH=${modules}`, 'PYTHONDONTWRITEBYTECODE=1', 'python3'] as const;
  const said = await bench.must(...python, DRIVE, 'qmp.sock', JSON.stringify(steps));
  return compared(JSON.parse(said) as Session);
}

describe.skipIf(!haveClient)('QEMU’s client is told by us what QEMU tells it, of', () => {
  it.each(Object.entries(SCENARIOS))('%s', async (_, steps) => {
    await using bench = new Bench();
    const modules = await fetched(bench, 'qmp');
    const [ours, theirs] = await Promise.all([
      session('ours', modules, steps),
      session('theirs', modules, steps),
    ]);
    expect(ours).toEqual(theirs);
  });
});
