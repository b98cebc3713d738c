import { describe, expect, it } from 'vitest';
import { type Bench, bench, haveQemu, makeChain } from './support.ts';

/** One row of `map --output json`. */
interface Row {
  readonly start: number;
  readonly length: number;
  readonly depth: number;
  readonly present: boolean;
  readonly zero: boolean;
  readonly data: boolean;
  readonly offset?: number;
}

const MIB = 1 << 20;

describe('map', () => {
  it('names the layer of each run; depth 0 is the leaf', async () => {
    using work = bench();
    await makeChain(work);
    const rows = work.json<Row[]>('map', 'active.qcow2');
    expect(
      rows.map(({ start, length, depth, data }) => [start / MIB, length / MIB, depth, data]),
    ).toEqual([
      [0, 1, 3, true],
      [1, 1, 2, true],
      [2, 1, 1, true],
      [3, 1, 2, true],
      [4, 1, 1, true],
      [5, 1, 0, true],
      [6, 2, 3, false],
    ]);
    const human = work.downfold('map', 'active.qcow2').stdout.split('\n');
    expect(human[0]).toBe('Offset          Length          Mapped to       File');
    expect(human[1]).toMatch(/^0 {15}0x100000 {8}0x[0-9a-f]+ +base\.qcow2$/);
    expect(human).toHaveLength(8);
  });

  it('looks at a part of the disk only', async () => {
    using work = bench();
    await makeChain(work);
    const rows = work.json<Row[]>(
      'map',
      '--start-offset',
      '1.5M',
      '--max-length',
      '1M',
      'active.qcow2',
    );
    expect(rows.map(({ start, length, depth }) => [start / MIB, length / MIB, depth])).toEqual([
      [1.5, 0.5, 2],
      [2, 0.5, 1],
    ]);
    // as qemu-img: a range without bytes has one row
    expect(work.json('map', '--start-offset', '1G', 'active.qcow2')).toEqual([
      { start: 1024 * MIB, length: 0, depth: 0, present: false, zero: false, data: false },
    ]);
  });

  describe.skipIf(!haveQemu)('says what qemu-img says of', () => {
    /** Creates an image and runs commands of qemu-io on it. */
    const make = (work: Bench, name: string, create: readonly string[], ...io: string[]): void => {
      work.must(
        'qemu-img',
        'create',
        '-q',
        '-f',
        'qcow2',
        ...create.slice(0, -1),
        name,
        create.at(-1) ?? '',
      );
      const commands = io.flatMap((command) => ['-c', command]);
      if (io.length > 0) work.must('qemu-io', '-f', 'qcow2', ...commands, name);
    };
    const chains: Readonly<Record<string, (work: Bench) => void>> = {
      'data, zeros, discarded and compressed clusters over four layers': (work) => {
        make(work, 'a', ['8M'], 'write -P 1 0 1M', 'write -P 2 4M 64k');
        make(
          work,
          'b',
          ['-b', 'a', '-F', 'qcow2', '8M'],
          'write -P 3 512k 1M',
          'write -z 2M 128k',
          'write -c 5M 64k',
        );
        make(
          work,
          'c',
          ['-b', 'b', '-F', 'qcow2', '8M'],
          'write -P 4 7M 64k',
          'discard 0 64k',
          'write -z -u 3M 64k',
        );
        make(work, 'x', ['-b', 'c', '-F', 'qcow2', '8M'], 'write -P 5 100k 300k');
      },
      'a short layer in the middle and a longer leaf': (work) => {
        make(work, 'a', ['8M'], 'write 0 8M');
        make(work, 'b', ['-b', 'a', '-F', 'qcow2', '6M'], 'write 1M 64k');
        make(work, 'x', ['-b', 'b', '-F', 'qcow2', '10M'], 'write 9M 1M');
      },
      'clusters of 512 bytes on version 2 with clusters of 2 MiB': (work) => {
        make(work, 'a', ['-o', 'compat=0.10,cluster_size=2M', '8M'], 'write 0 4M');
        make(
          work,
          'x',
          ['-o', 'cluster_size=512', '-b', 'a', '-F', 'qcow2', '8M'],
          'write 1k 1k',
          'write 3M 5k',
          'write -z 5M 8k',
        );
      },
      'a raw file below': (work) => {
        work.must('dd', 'if=/dev/urandom', 'of=a', 'bs=64k', 'count=20', 'status=none');
        make(work, 'x', ['-b', 'a', '-F', 'raw', '2M'], 'write 64k 64k', 'write -z 256k 64k');
      },
      'subclusters that are written whole': (work) => {
        make(work, 'a', ['4M'], 'write 0 4M');
        make(
          work,
          'x',
          ['-o', 'extended_l2=on', '-b', 'a', '-F', 'qcow2', '4M'],
          'write 0 2k',
          'write 6k 10k',
          'write -z 1M 4k',
          'write 2M 64k',
        );
      },
      'a raw file with holes below, and past its end': (work) => {
        work.must('truncate', '-s', '5M', 'a');
        const io = ['write 1M 64k', 'write 2101248 4k', 'write 5242368 512'];
        work.must('qemu-io', '-f', 'raw', ...io.flatMap((one) => ['-c', one]), 'a');
        make(work, 'x', ['-b', 'a', '-F', 'raw', '8M'], 'write 3M 64k', 'write -z 4M 64k');
      },
      'clusters that were allocated and never written': (work) => {
        make(work, 'x', ['-o', 'preallocation=metadata', '8M'], 'write 2M 128k');
      },
      'an empty disk': (work) => {
        make(work, 'x', ['1M']);
      },
    };

    it.each(Object.entries(chains))('%s', (_, build) => {
      using work = bench();
      build(work);
      const theirs = JSON.parse(
        work.must('qemu-img', 'map', '-f', 'qcow2', '--output=json', 'x'),
      ) as Row[];
      expect(work.json('map', 'x')).toEqual(theirs);
      const human = work.run('qemu-img', 'map', '-f', 'qcow2', 'x');
      const ours = work.downfold('map', 'x');
      expect(ours.code).toBe(human.code);
      expect(ours.stdout).toBe(human.stdout);
    });

    it.each([
      ['1000001', 'write 65536 4096'],
      ['43009', 'write 43008 1'],
      ['8T', 'write 5T 1M'],
    ])('a raw file of %s bytes, with holes', (size, io) => {
      using work = bench();
      work.must('truncate', '-s', size, 'x');
      work.must('qemu-io', '-f', 'raw', '-c', io, 'x');
      const json = ['map', '-f', 'raw', '--output=json', 'x'];
      const theirs = work.must('qemu-img', ...json);
      expect(JSON.parse(work.downfold(...json).stdout)).toEqual(JSON.parse(theirs));
      const human = work.must('qemu-img', 'map', '-f', 'raw', 'x');
      expect(work.downfold('map', '-f', 'raw', 'x').stdout).toBe(human);
    });

    it('a part of a disk', () => {
      using work = bench();
      make(work, 'x', ['8M'], 'write 0 1M', 'write 3M 2M');
      const part = ['--start-offset=512k', '--max-length=3M'];
      const theirs = work.must('qemu-img', 'map', '-f', 'qcow2', '--output=json', ...part, 'x');
      expect(work.json('map', ...part, 'x')).toEqual(JSON.parse(theirs));
    });
  });
});
