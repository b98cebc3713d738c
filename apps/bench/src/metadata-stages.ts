import { closeSync, openSync, readSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { seededRandom } from '@downfold/compliance';
import { CLI } from './commit-stages.ts';
import { type Contest, opened, type Stage } from './contest.ts';
import { must, type Timing, timed } from './process.ts';

const GIB = 2 ** 30;
const CLUSTER = 65536;

/** What is asked of a large image, by both sides. */
interface Question {
  readonly verb: string;
  readonly against: string;
  readonly goal: number;
  readonly ours: readonly string[];
  readonly theirs: readonly string[];
}

/** Walking the tables of a disk whose every cluster is allocated: no data is read. */
export function metadataStages(smoke: boolean): readonly Stage[] {
  const virtual = smoke ? 16 * GIB : 1024 * GIB;
  const name = `${virtual / GIB} GiB, ${(virtual / CLUSTER / 1e6).toFixed(1)} M clusters`;
  const questions: readonly Question[] = [
    {
      verb: 'map',
      against: '`qemu-img map`',
      goal: 0.06,
      ours: ['map', '--output=json', '-f', 'qcow2', 'top.qcow2'],
      theirs: ['map', '--output=json', '-f', 'qcow2', 'top.qcow2'],
    },
    {
      verb: 'check',
      against: '`qemu-img check`',
      goal: 0.15,
      ours: ['check', '-q', '-f', 'qcow2', 'top.qcow2'],
      theirs: ['check', '-q', '-f', 'qcow2', 'top.qcow2'],
    },
    {
      verb: 'commit --dry-run',
      against: '`qemu-img map`',
      goal: 0.1,
      ours: ['commit', '-q', '-d', '--dry-run', '-f', 'qcow2', '-b', 'base.qcow2', 'top.qcow2'],
      theirs: ['map', '--output=json', '-f', 'qcow2', 'top.qcow2'],
    },
  ];
  const works = questions.map(({ verb }) => `${verb}, ${name}`);
  const open = async (directory: string) => {
    makeLarge(directory, virtual);
    return opened(questions.map((one, index) => contest(directory, works[index] ?? '', one)));
  };
  return [{ name, works, missing: () => null, open }];
}

function contest(directory: string, work: string, question: Question): Contest {
  const { against, goal, ours, theirs } = question;
  const named = (args: readonly string[]): readonly string[] =>
    args.map((arg) => (arg.endsWith('.qcow2') ? join(directory, arg) : arg));
  return {
    work,
    against,
    goal,
    ours: async (): Promise<Timing> => timed(process.execPath, [CLI, ...named(ours)]),
    theirs: async (): Promise<Timing> => timed('qemu-img', named(theirs)),
  };
}

/** base <- top, both with a table entry for every cluster; in top, clusters have changed places so that there are millions of runs. */
function makeLarge(directory: string, virtual: number): void {
  for (const [name, below] of [
    ['base.qcow2', null],
    ['top.qcow2', 'base.qcow2'],
  ] as const) {
    // preallocated without a backing file, which it is given afterwards
    const options = ['-o', 'preallocation=metadata'];
    must('qemu-img', ['create', '-q', '-f', 'qcow2', ...options, name, `${virtual}`], directory);
    if (below !== null)
      must(
        'qemu-img',
        ['rebase', '-u', '-b', below, '-F', 'qcow2', '-f', 'qcow2', name],
        directory,
      );
  }
  scramble(join(directory, 'top.qcow2'));
}

/**
 * Lets neighbours in the L2 tables change places, at random, one in ten: the image stays right, since every cluster is still referred to
 * once. One entry in 500 gets the zero flag.
 */
function scramble(path: string): void {
  const random = seededRandom(7);
  const file = openSync(path, 'r+');
  const read = (offset: number, length: number): Buffer => {
    const bytes = Buffer.alloc(length);
    readSync(file, bytes, 0, length, offset);
    return bytes;
  };
  // header: number of L1 entries at 36, their table at 40; an entry: flags above bit 56 and below bit 9
  const header = read(0, 104);
  const l1 = read(Number(header.readBigUInt64BE(40)), header.readUInt32BE(36) * 8);
  for (let entry = 0; entry < l1.length; entry += 8) {
    const offset = Number(l1.readBigUInt64BE(entry) & 0x00ff_ffff_ffff_fe00n);
    if (offset === 0) continue;
    const table = read(offset, CLUSTER);
    for (let at = 0; at < CLUSTER - 8; at += 8 * (1 + Math.floor(random() * 18))) {
      const neighbour = table.readBigUInt64BE(at + 8);
      table.writeBigUInt64BE(table.readBigUInt64BE(at), at + 8);
      table.writeBigUInt64BE(random() < 0.02 ? neighbour | 1n : neighbour, at);
    }
    writeSync(file, table, 0, CLUSTER, offset);
  }
  closeSync(file);
}
