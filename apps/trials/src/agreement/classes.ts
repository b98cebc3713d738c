import type { Verdict } from './verdict.ts';

/** A case, and what was made of it. */
export interface Judged {
  readonly kind: string;
  readonly field: string;
  readonly value: string;
  readonly qemu: Verdict;
  readonly downfold: Verdict;
}

/** A kind of difference, and why it is one. */
export interface DifferenceClass {
  readonly name: string;
  readonly why: string;
  readonly applies: (one: Judged) => boolean;
}

const says = ({ read, write, check }: Verdict, wanted: string): boolean =>
  `${read} ${write} ${check}` === wanted;

/** All of them; of those that apply to a case the first explains it. */
export const CLASSES: readonly DifferenceClass[] = [
  {
    name: 'not-there',
    why: 'Stricter: QEMU reads what lies past the end of the file as zeros, reserved bits as nothing, and metadata as tables or data, although its check finds the corruption. A commit of such zeros would put them in the place of good data.',
    applies: ({ qemu, downfold }) =>
      qemu.read === 'reads' &&
      downfold.read === 'refuses' &&
      qemu.write === downfold.write &&
      qemu.check === downfold.check,
  },
  {
    name: 'cut',
    why: 'Stricter: the file ends before a table that the header names. QEMU takes the table for zeros, and its check may find nothing.',
    applies: ({ field, qemu, downfold }) =>
      field === 'length of the file' &&
      qemu.read === 'reads' &&
      says(downfold, 'refuses refuses 1'),
  },
  {
    name: 'tables',
    why: 'Stricter: a table that the header names lies outside the file, or is the header. Refused when opened, and so not checked; QEMU opens it, and its check finds corruptions.',
    applies: ({ field, qemu, downfold }) =>
      /table|snapshots/.test(field) &&
      says(qemu, 'reads opens 2') &&
      says(downfold, 'refuses refuses 1'),
  },
  {
    name: 'lost-table',
    why: 'Stricter: an image whose refcount table the file does not hold takes no writes until it is repaired; QEMU takes the table for zeros, and what is in use for free.',
    applies: ({ field, qemu, downfold }) =>
      /refcount_table/.test(field) &&
      says(qemu, 'reads opens 2') &&
      downfold.write === 'refuses' &&
      downfold.check === 2,
  },
  {
    name: 'zero-flag',
    why: 'Stricter: extended L2 entries have no zero flag, it is always 0; QEMU does not look at it there.',
    applies: ({ kind, field, qemu, downfold }) =>
      kind === 'extended L2' &&
      field === 'L2[0]' &&
      says(qemu, 'reads opens 0') &&
      says(downfold, 'refuses opens 2'),
  },
  {
    name: 'too-large-a-number',
    why: 'Stricter: a number above 2^53 is refused wherever it stands, also where nothing uses it.',
    applies: ({ field, qemu, downfold }) =>
      /snapshots_offset/.test(field) &&
      says(qemu, 'reads opens 0') &&
      says(downfold, 'refuses refuses 1'),
  },
  {
    name: 'no-name',
    why: 'Stricter: a backing name inside the fields of the header, and a format that is no text, are refused, whether or not somebody follows them.',
    applies: ({ field, qemu, downfold }) =>
      /backing_file|extension/.test(field) &&
      qemu.read === 'reads' &&
      says(downfold, 'refuses refuses 1'),
  },
  {
    name: 'not-counted',
    why: 'Stricter: what snapshots and bitmaps hold must be known before something is written, and before a check can count; QEMU finds out in its check.',
    applies: ({ field, qemu, downfold }) =>
      /snapshot|bitmap/.test(field) && qemu.write === 'opens' && says(downfold, 'reads refuses 1'),
  },
  {
    name: 'disk-is-read',
    why: 'Laxer: wrong snapshots or bitmaps keep nobody from reading the disk: who has nothing else left of it can copy it. Not opened for writing, and not checked, by either.',
    applies: ({ kind, qemu, downfold }) =>
      /snapshot|bitmap/.test(kind) &&
      says(qemu, 'refuses refuses 1') &&
      says(downfold, 'reads refuses 1'),
  },
  {
    name: 'bitmaps-later',
    why: 'Laxer: QEMU reads bitmaps when it opens an image, and refuses all of it for a wrong one. Downfold reads them when somebody asks for them, and before the first change; its check counts their clusters.',
    applies: ({ kind, qemu, downfold }) =>
      kind === 'bitmap' &&
      says(qemu, 'refuses refuses 1') &&
      downfold.read === 'reads' &&
      downfold.write === 'opens',
  },
  {
    name: 'check-says-more',
    why: 'Stricter: what either refuses to read is also a corruption to the check of Downfold; QEMU does not look at it there.',
    applies: ({ qemu, downfold }) =>
      qemu.read === downfold.read &&
      qemu.write === downfold.write &&
      qemu.check === 0 &&
      downfold.check === 2,
  },
  {
    name: 'check-goes-on',
    why: 'Says more: an entry of the refcount table above 2^56 ends the check of QEMU; that of Downfold names it and goes on.',
    applies: ({ field, qemu, downfold }) =>
      /refcount table/.test(field) && qemu.check === 1 && downfold.check === 2,
  },
  {
    name: 'no-refcounts',
    why: 'Stricter: an image without a refcount table is opened by neither; only the check of QEMU opens it, to rebuild one.',
    applies: ({ field, qemu, downfold }) =>
      /refcount_table_clusters/.test(field) && qemu.check === 2 && downfold.check === 1,
  },
];

/** Whether both make the same of a case. */
export function agrees({ qemu, downfold }: Judged): boolean {
  return (
    qemu.read === downfold.read && qemu.write === downfold.write && qemu.check === downfold.check
  );
}

/** What explains a difference; undefined: nothing does. */
export function classOf(one: Judged): DifferenceClass | undefined {
  return CLASSES.find(({ applies }) => applies(one));
}
