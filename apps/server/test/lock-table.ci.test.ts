import { unlinkSync } from 'node:fs';
import { describe, expect, it, vi } from 'vitest';
import {
  asDisk,
  Bench,
  type Bytes,
  haveAll,
  LOCKS,
  lockedBytes,
  MIB,
  makeChain,
  serve,
  type Whose,
  WRITABLE,
} from './support.ts';

// The table of QEMU's locks (facts on crash safety, 4.1), with QEMU and with this server in each of its situations; and, of both, what the other one may
// open meanwhile.

const haveTools = haveAll('qemu-storage-daemon', 'qemu-io', 'perl');

const NAMES = ['base', 'mid', 'top', 'active'] as const;
type Name = (typeof NAMES)[number];

const { NONE, READER, WRITER } = LOCKS;
const LOSER: Bytes = [100, 200, 201, 203];

const locked = (bench: Bench, name: Name): Promise<Bytes> => lockedBytes(bench, `${name}.qcow2`);

/** What is locked of all images. */
async function table(bench: Bench): Promise<Readonly<Record<Name, Bytes>>> {
  const rows = await Promise.all(NAMES.map(async (name) => [name, await locked(bench, name)]));
  return Object.fromEntries(rows) as Record<Name, Bytes>;
}

/** Who opens an image meanwhile, what he locks of it, and whether he may. */
interface Visitor {
  readonly of: 'QEMU' | 'us';
  readonly holds: Bytes;
  mayOpen(bench: Bench, name: Name): Promise<boolean>;
}

const byQemu =
  (...flags: readonly string[]): Visitor['mayOpen'] =>
  async (bench, name) => {
    const command = ['-f', 'qcow2', ...flags, '-c', 'length', `${name}.qcow2`];
    const { stdout, stderr } = await bench.run('qemu-io', ...command);
    const isRefused = /Failed to get (?:shared )?"[a-z ]+" lock/.test(stdout + stderr);
    expect(isRefused || stdout.includes('16 MiB'), stdout + stderr).toBe(true);
    return !isRefused;
  };

const byUs =
  (...flags: readonly string[]): Visitor['mayOpen'] =>
  async (bench, name) => {
    const visit = bench.start([`${name}.qcow2`, '--nbd', 'unix:visit/nbd.sock', ...flags]);
    const isOpen = await visit.said(/^downfoldd: (serving|NBD at)/m).then(
      () => true,
      () => false,
    );
    visit.kill('SIGTERM');
    const { stderr } = await visit.ended;
    if (!isOpen) expect(stderr).toMatch(/is in use/);
    return isOpen;
  };

const VISITORS: readonly Visitor[] = [
  { of: 'QEMU', holds: READER, mayOpen: byQemu('-r') },
  { of: 'QEMU', holds: WRITER, mayOpen: byQemu() },
  { of: 'QEMU', holds: [100], mayOpen: byQemu('-r', '-U') },
  { of: 'us', holds: READER, mayOpen: byUs('--read-only') },
  { of: 'us', holds: WRITER, mayOpen: byUs() },
];

/** Whether two that hold these bytes of one file exclude each other. */
function exclude(some: Bytes, others: Bytes): boolean {
  const meets = (holder: Bytes, other: Bytes): boolean =>
    [0, 1, 3].some((one) => holder.includes(100 + one) && other.includes(200 + one));
  return meets(some, others) || meets(others, some);
}

/** Every visitor at an image: he gets in where the bytes let him. */
async function visit(bench: Bench, name: Name, held: Bytes): Promise<void> {
  for (const { of, holds, mayOpen } of VISITORS) {
    const [seen, expected] = [await mayOpen(bench, name), !exclude(held, holds)];
    expect(seen, `${of}, holding ${holds}, at ${name}, of which ${held} is locked`).toBe(expected);
  }
}

/** What a node of the active layer is, and which bytes of base, and of it, are locked then. */
const USES: readonly {
  readonly what: string;
  readonly node: string;
  readonly more?: readonly string[];
  readonly of: readonly Whose[];
  readonly below: Bytes;
  readonly top: Bytes;
}[] = [
  {
    what: 'for reading',
    node: 'qcow2,read-only=on',
    of: ['QEMU', 'us'],
    below: READER,
    top: READER,
  },
  {
    what: 'for writing',
    node: 'qcow2',
    more: WRITABLE,
    of: ['QEMU', 'us'],
    below: READER,
    top: WRITER,
  },
  {
    what: 'shared by force',
    node: 'qcow2,read-only=on,force-share=on',
    of: ['QEMU'],
    below: [100],
    top: [100],
  },
  { what: 'raw, by nobody', node: 'raw', of: ['QEMU'], below: NONE, top: NONE },
  // what a node names may not change
  { what: 'raw, by nobody', node: 'raw', of: ['us'], below: NONE, top: READER },
  {
    what: 'raw, for writing',
    node: 'raw',
    more: WRITABLE,
    of: ['QEMU'],
    below: NONE,
    top: [100, 101, 203],
  },
  // no second writer, whatever the format
  {
    what: 'raw, for writing',
    node: 'raw',
    more: WRITABLE,
    of: ['us'],
    below: NONE,
    top: WRITER,
  },
];

it.skipIf(!haveTools).each(USES.flatMap((use) => use.of.map((whose) => ({ whose, ...use }))))(
  'locks of what is open $what, by $whose',
  async ({ whose, node, more = [], below, top }) => {
    await using bench = new Bench();
    await makeChain(bench, { base: [0], active: [1] });
    const file = `file.driver=file,file.filename=${bench.file('active.qcow2')}`;
    await serve(bench, whose, '--blockdev', `${node},node-name=disk,${file}`, ...more);
    expect(await table(bench)).toEqual({ base: below, mid: NONE, top: NONE, active: top });
  },
);

describe.skipIf(!haveTools).each(['QEMU', 'us'] as const)('locks, by %s,', (whose) => {
  it('of a chain in use, while layers of it are committed, and after', async () => {
    await using bench = new Bench();
    await makeChain(bench, { base: [0, 1], mid: [1, 2], top: [2, 3], active: [4] });
    const served = await serve(bench, whose, ...asDisk(bench, 'active.qcow2'), ...WRITABLE);
    const inUse = { base: READER, mid: READER, top: READER, active: WRITER };
    expect(await table(bench)).toEqual(inUse);
    await visit(bench, 'base', READER);

    await served.execute('block-commit', {
      'job-id': 'j',
      device: 'disk',
      top: bench.file('top.qcow2'),
      base: bench.file('base.qcow2'),
      speed: MIB / 16,
    });
    // ours rewrites top's own backing reference, and top stays readable: it is written, and loses nothing
    const top = whose === 'QEMU' ? LOSER : WRITER;
    const during = { ...inUse, base: WRITER, mid: LOSER, top };
    // our answer says that there is a job, which then takes its locks one by one
    await vi.waitFor(async () => expect(await table(bench)).toEqual(during), 5000);
    await visit(bench, 'base', WRITER);
    await visit(bench, 'mid', LOSER);
    await served.execute('block-job-set-speed', { device: 'j', speed: 0 });
    await served.until('null');
    expect(await table(bench)).toEqual({ ...inUse, mid: NONE, top: NONE });
    await visit(bench, 'base', READER);

    for (const name of ['mid', 'top']) unlinkSync(bench.file(`${name}.qcow2`));
    await served.execute('block-commit', { 'job-id': 'j', device: 'disk' });
    await served.until('BLOCK_JOB_READY');
    const ready = { base: WRITER, mid: NONE, top: NONE, active: WRITER };
    expect(await table(bench)).toEqual(ready);
    await visit(bench, 'base', WRITER);
    await served.execute('job-complete', { id: 'j' });
    await served.until('null');
    // QEMU keeps the node that its user made, and the file with it
    expect(await table(bench)).toEqual(whose === 'QEMU' ? ready : { ...ready, active: NONE });
    await visit(bench, 'base', WRITER);
  });
});
