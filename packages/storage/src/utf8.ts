/** What Node puts where bytes are not UTF-8. */
const REPLACED = '\ufffd';

/** Whether a name, or an argument, is what was said: one that was not UTF-8 is the name of something else by now. */
export function isUtf8(name: string): boolean {
  return !name.includes(REPLACED);
}
