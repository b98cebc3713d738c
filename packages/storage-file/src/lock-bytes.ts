import { type LockConflict, type LockRequest, PERMISSIONS } from '@downfold/storage';

/**
 * QEMU's locks: byte 100+i of the file says "I have permission i", byte 200+i "I do not share permission i". Every holder has a shared lock
 * on its bytes and then looks whether anybody has one on those that it excludes. Source: QEMU's `block/file-posix.c`; facts on crash
 * safety, 4.1.
 */
const TAKEN = 100;
const FORBIDDEN = 200;

/** The bytes of one lock. */
export interface LockBytes {
  /** Locked, all of them, before it is looked. */
  readonly hold: readonly number[];
  /** Nobody else may have a lock on these. */
  readonly free: readonly number[];
}

export function lockBytesOf({ takes, forbids }: LockRequest): LockBytes {
  const bytes = (base: number, permissions: LockRequest['takes']): number[] =>
    permissions.map((permission) => base + PERMISSIONS.indexOf(permission));
  return {
    hold: [...bytes(TAKEN, takes), ...bytes(FORBIDDEN, forbids)],
    free: [...bytes(FORBIDDEN, takes), ...bytes(TAKEN, forbids)],
  };
}

/** What a lock on `byte` by somebody else means. */
export function conflictAt(byte: number): LockConflict {
  const because = byte >= FORBIDDEN ? 'forbidden' : 'taken';
  const index = byte - (byte >= FORBIDDEN ? FORBIDDEN : TAKEN);
  // a whole range may be locked by something that is not QEMU
  return { permission: PERMISSIONS[index] ?? 'consistent-read', because };
}
