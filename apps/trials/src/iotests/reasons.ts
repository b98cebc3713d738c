import type { Format } from './run.ts';

/** Tests that fail for one reason. */
export interface Failing {
  readonly format: Format;
  readonly tests: readonly string[];
  /** One line for people; a test that fails for several reasons has the one that stays when the others are gone. */
  readonly reason: string;
}

/** What is known to fail. No test stands twice. */
export const REASONS: readonly Failing[] = [
  {
    format: 'qcow2',
    tests: ['036', '049', '054', '079', '111', '137'],
    reason:
      'errors in other words, exit codes alike: one line that says what to do; qemu-img prints `Formatting` first. 036 also: no feature name table, see 031; 054, 137 also: sizes end at 4 PiB',
  },
  {
    format: 'qcow2',
    tests: ['112'],
    reason: 'errors in other words, and no leaks where QEMU leaves some by what it refuses',
  },
  {
    format: 'qcow2',
    tests: ['031'],
    reason:
      'a new image has no feature name table: with it, the first sector, which alone is written at once, would be full',
  },
  {
    format: 'qcow2',
    tests: ['qemu-img-bitmaps'],
    reason:
      'the same sector of an image by QEMU, with a feature name table and bitmaps, has no room for the format of a first backing file: `rebase` refuses',
  },
  {
    format: 'qcow2',
    tests: ['039', '138', '214'],
    reason:
      '`check` and `check -r` say what is wrong, and what was done, in other words; the counts are of what is wrong, not of what is rewritten',
  },
  {
    format: 'qcow2',
    tests: ['217'],
    reason: 'snapshots take other clusters, so that others leak',
  },
  {
    format: 'qcow2',
    tests: ['261'],
    reason:
      'a snapshot has -1 for an unknown icount, as the specification says; `amend` refuses a version 3 image whose snapshots do not say how large the disk was',
  },
  {
    format: 'qcow2',
    tests: ['271'],
    reason:
      '`check -r` keeps an entry that points to no cluster: it may be what somebody needs to find the data. Also: clusters below 16 KiB with extended L2 entries are refused',
  },
  {
    format: 'qcow2',
    tests: ['020', '126'],
    reason:
      'names are of plain files: no `json:`, no `file:`. 020 also: the base of a commit may be named by any path to it, on purpose',
  },
  {
    format: 'qcow2',
    tests: ['043'],
    reason:
      'a rebase that would make a loop of backing files is refused, so there is none that `info` could stumble over',
  },
  {
    format: 'qcow2',
    tests: ['024', '122'],
    reason:
      'the same disk in less space: `rebase` hides the new base by zero clusters where QEMU writes zeros, `convert -n` leaves unallocated what reads as zero already. 122 also: errors in other words',
  },
  {
    format: 'qcow2',
    tests: ['178'],
    reason:
      'errors in other words; sizes end at 4 PiB; a new empty image is one cluster larger than one by QEMU',
  },
  {
    format: 'qcow2',
    tests: ['080'],
    reason:
      'damaged snapshot tables: an image with errors takes no write until it is repaired; QEMU goes on with some of them, and leaks',
  },
  {
    format: 'qcow2',
    tests: ['082'],
    reason: 'the help of `-o` is in our words, and has the options that there are',
  },
  {
    format: 'qcow2',
    tests: ['086'],
    reason: 'progress goes to stderr, in other steps, on purpose',
  },
  {
    format: 'qcow2',
    tests: ['097'],
    reason:
      'the images between are marked invalid by `commit -b`, on purpose: they are not opened again',
  },
  {
    format: 'qcow2',
    tests: ['114'],
    reason:
      'a header extension that stands twice is refused: which of the two backing formats is meant?',
  },
  {
    format: 'qcow2',
    tests: ['190'],
    reason: 'bitmaps above the memory limit are refused (512 MiB for one bitmap)',
  },
  {
    format: 'raw',
    tests: ['086'],
    reason: 'progress goes to stderr, in other steps, on purpose',
  },
  {
    format: 'raw',
    tests: ['178'],
    reason: 'errors in other words; sizes end at 4 PiB',
  },
];
