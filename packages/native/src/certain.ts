/** Of a call that gives another reason each time, the last is told. */
const MOST_TRIES = 8;

/**
 * What a system call returned, or, below zero, its error number: `-ENXIO`. `errno` is read by a call of its own, and what the engine does between both
 * may change it (seen once: `lseek` at the end of a file, with ENOENT). A reason counts when two tries in a row give it.
 * @param call returns a number below zero when it failed, which has changed nothing: it is made again
 */
export function certain(call: () => number, errno: () => number): number {
  let reason = 0;
  for (let tries = 0; tries < MOST_TRIES; tries++) {
    const result = call();
    if (result >= 0) return result;
    const now = errno();
    if (now === reason) break;
    reason = now;
  }
  return -reason;
}
