/**
 * What a process does with an image, or what it lets others do meanwhile: QEMU's permissions, in the order of their numbers.
 * - `consistent-read`: reads a content that belongs together; it is lost when an image stops representing any point in time.
 * - `write`: changes what a guest sees.
 * - `write-unchanged`: writes without changing what a guest sees.
 * - `resize`: changes the length.
 */
export type Permission = 'consistent-read' | 'write' | 'write-unchanged' | 'resize';

/** All permissions; the place of each is its number. Source: QEMU's `file-posix`, unchanged from 2.10 to 10.0. */
export const PERMISSIONS: readonly Permission[] = [
  'consistent-read',
  'write',
  'write-unchanged',
  'resize',
];

/** What a lock says: its holder does this, and nobody else may do that while it is held. */
export interface LockRequest {
  readonly takes: readonly Permission[];
  readonly forbids: readonly Permission[];
}

/** Whoever reads an image: nobody may change it. */
export const READER: LockRequest = { takes: ['consistent-read'], forbids: ['write', 'resize'] };

/** Whoever writes an image: nobody else may. */
export const WRITER: LockRequest = {
  takes: ['consistent-read', 'write', 'resize'],
  forbids: ['write', 'resize'],
};

/** Whoever makes an image lose its meaning without writing to it: nobody else may even read it. */
export const LOSER: LockRequest = {
  takes: ['consistent-read'],
  forbids: ['consistent-read', 'write', 'resize'],
};

/** What two locks of one file exclude each other by, or null: both can be held. `mine` is asked for, `theirs` is held. */
export function conflictOf(mine: LockRequest, theirs: LockRequest): LockConflict | null {
  for (const permission of mine.takes)
    if (theirs.forbids.includes(permission)) return { permission, because: 'forbidden' };
  for (const permission of mine.forbids)
    if (theirs.takes.includes(permission)) return { permission, because: 'taken' };
  return null;
}

/** Why a lock cannot be had: another holder forbids what is wanted, or does what was to be forbidden. */
export interface LockConflict {
  readonly permission: Permission;
  readonly because: 'forbidden' | 'taken';
}
