/** A number of 129 bits, as decimal text, that stands for a text: for identities of files that are known by a name alone. No file of this machine has one. */
export function numberOf(text: string): string {
  // taken here: most that use storage name no such file, and crypto takes 5 ms to load
  const { createHash } = process.getBuiltinModule('node:crypto');
  const digest = createHash('sha256').update(text).digest('hex');
  return BigInt(`0x1${digest.slice(0, 32)}`).toString();
}
