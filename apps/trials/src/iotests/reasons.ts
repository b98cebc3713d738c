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
    tests: ['036', '049', '054', '079', '111', '112', '137'],
    reason:
      'errors in other words, exit codes alike: one line that says what to do; qemu-img prints `Formatting` first. 112 also: amend does not change the width of refcounts yet, and no leak is left by what is refused; 137: sizes end at 8 PiB',
  },
  {
    format: 'qcow2',
    tests: ['031', '061'],
    reason:
      'a new image has no feature name table: with it, the first sector, which alone is written at once, would be full. 061 also: amend to version 2 refuses internal snapshots of version 3, and QEMU rebuilds refcounts elsewhere in an image that was left dirty',
  },
  {
    format: 'qcow2',
    tests: ['039', '138'],
    reason: '`check -r` is not there yet',
  },
  {
    format: 'qcow2',
    tests: ['020', '126'],
    reason:
      'names inside images are of plain files: no `json:`, no `file:`; and the base of a commit may be named by any path to it',
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
    tests: ['154', '179'],
    reason:
      '`map` has an `offset` for data only, on purpose: QEMU has one for preallocated zeros too',
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
    reason: 'bitmaps of more than the memory limit are refused (512 MiB for one bitmap)',
  },
];
