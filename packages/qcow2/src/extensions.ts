import { alignUp } from '@downfold/units';
import { corrupt } from './corrupt.ts';
import { EXTENSION, EXTENSION_ALIGNMENT, extensionHead, featureName } from './structures.ts';

/** One header extension. Unknown ones are kept byte for byte: a header is only ever changed in place. */
export interface Extension {
  readonly type: number;
  /** Byte of its head in the file. */
  readonly at: number;
  readonly data: Uint8Array;
}

/** The extension area of a header. */
export interface ExtensionArea {
  readonly extensions: readonly Extension[];
  /** Byte of the end marker; equal to `limit` when the area is full and has none. */
  readonly endAt: number;
  /** First byte after the area: the backing name or the end of the cluster. */
  readonly limit: number;
}

const ONCE: ReadonlySet<number> = new Set([
  EXTENSION.backingFormat,
  EXTENSION.featureNames,
  EXTENSION.bitmaps,
  EXTENSION.encryption,
  EXTENSION.dataFile,
  EXTENSION.mark,
]);

/**
 * Walks the extensions in `area` (the header cluster) from `start` to `limit`.
 * @throws ImageError `IMAGE_CORRUPT` when one is longer than the area or a known one stands twice.
 */
export function parseExtensions(
  label: string,
  area: Uint8Array,
  start: number,
  limit: number,
): ExtensionArea {
  const extensions: Extension[] = [];
  const seen = new Set<number>();
  let at = start;
  while (at + extensionHead.size <= limit) {
    const { type, length } = extensionHead.decode(area, at);
    const dataAt = at + extensionHead.size;
    if (length > limit - dataAt)
      throw corrupt(label, `header extension too large (${length} bytes)`, at);
    if (type === EXTENSION.end) return { extensions, endAt: at, limit };
    if (ONCE.has(type) && seen.has(type)) throw corrupt(label, 'header extension stands twice', at);
    seen.add(type);
    extensions.push({ type, at, data: area.slice(dataAt, dataAt + length) });
    at = dataAt + alignUp(length, EXTENSION_ALIGNMENT);
  }
  return { extensions, endAt: Math.min(at, limit), limit };
}

/** The extension of a type, or undefined. */
export function findExtension(area: ExtensionArea, type: number): Extension | undefined {
  return area.extensions.find((extension) => extension.type === type);
}

/** Name of an incompatible feature bit, from the image's own feature name table when it has one. */
export function featureLabel(area: ExtensionArea, bit: number): string {
  const table = findExtension(area, EXTENSION.featureNames)?.data ?? new Uint8Array();
  for (let at = 0; at + featureName.size <= table.length; at += featureName.size) {
    const row = featureName.decode(table, at);
    if (row.kind === 0 && row.bit === bit) return printable(row.name);
  }
  return `incompatible feature bit ${bit}`;
}

/** ASCII text up to the first NUL; anything unprintable becomes `?`. */
function printable(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  return Array.from(end < 0 ? bytes : bytes.subarray(0, end), (code) =>
    code >= 0x20 && code < 0x7f ? String.fromCharCode(code) : '?',
  ).join('');
}

/** A whole extension: head, data and padding. */
export function encodeExtension(type: number, data: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(alignUp(extensionHead.size + data.length, EXTENSION_ALIGNMENT));
  extensionHead.encode({ type, length: data.length }, bytes);
  bytes.set(data, extensionHead.size);
  return bytes;
}
