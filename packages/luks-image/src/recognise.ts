/** "LUKS\xba\xbe", here once more: `@downfold/luks` has it, and brings all of Node's crypto, which recognising a file does not need. */
const MAGIC: readonly number[] = [0x4c, 0x55, 0x4b, 0x53, 0xba, 0xbe];

/** Whether a file that starts with `head` claims to be encrypted with LUKS, of any version. */
export function isLuks(head: Uint8Array): boolean {
  return MAGIC.every((byte, index) => head[index] === byte);
}

/** The same of version 1, which follows the magic as 16 bits. */
export function isLuks1(head: Uint8Array): boolean {
  return isLuks(head) && head[MAGIC.length] === 0 && head[MAGIC.length + 1] === 1;
}
