/**
 * Throws unless both hold the same bytes. The message says where they first differ: runners print large arrays
 * badly and slowly.
 * @param what names the bytes, e.g. `the file after the copy`.
 */
export function assertSameBytes(found: Uint8Array, expected: Uint8Array, what: string): void {
  if (found.length !== expected.length)
    throw new Error(`${what}: ${found.length} bytes, expected ${expected.length}`);
  if (Buffer.compare(found, expected) === 0) return;
  const at = found.findIndex((byte, index) => byte !== expected[index]);
  throw new Error(`${what}: byte ${at} is ${found[at]}, expected ${expected[at]}`);
}
