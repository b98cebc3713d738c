/** The parts of `a=b,c=d`: commas divide them, two in a row are one that is meant. */
export function partsOf(text: string): readonly string[] {
  const meant = '\0';
  return text
    .replaceAll(',,', meant)
    .split(',')
    .map((part) => part.replaceAll(meant, ','));
}

/** The same as names and values; a part without `=` is a name that is `on`, or behind `no` one that is `off`: as QEMU's. */
export function keyedParts(text: string): readonly (readonly [name: string, value: string])[] {
  return partsOf(text).map((part) => {
    const at = part.indexOf('=');
    if (at >= 0) return [part.slice(0, at), part.slice(at + 1)];
    return part.startsWith('no') ? [part.slice('no'.length), 'off'] : [part, 'on'];
  });
}
