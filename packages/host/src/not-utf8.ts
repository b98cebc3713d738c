/** What Node puts where bytes are not UTF-8. */
const REPLACED = '\ufffd';

/** The first of these arguments, or names, that was not UTF-8 and is therefore the name of something else now; undefined: all are what was said. */
export function notUtf8(names: readonly string[]): string | undefined {
  return names.find((name) => name.includes(REPLACED));
}
