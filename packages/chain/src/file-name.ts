/** Before a name it says that a file is meant. */
const FILE = 'file:';

/** A name of a file without the prefix that says that it is one. */
export function withoutFilePrefix(name: string): string {
  return name.startsWith(FILE) ? name.slice(FILE.length) : name;
}

/** Whether QEMU takes a name for one of a protocol: a colon comes before any slash. So do URLs, and `file:`. */
export function namesProtocol(name: string): boolean {
  return /^[^/:]*:/.test(name);
}
