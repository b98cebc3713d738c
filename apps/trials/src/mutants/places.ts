// Where the parts of an image lie, read by a small walker of its own: the code under test does not say where it may be hurt.
// Layout: docs/interop/qcow2.txt of QEMU (the specification).

/** A field or an entry. */
export interface Place {
  readonly what: string;
  readonly at: number;
  readonly bytes: number;
}

/** The parts of a valid image. */
export interface Places {
  readonly clusterSize: number;
  readonly length: number;
  /** By group, so that the few fields of a header are drawn as often as the many entries of a table. */
  readonly groups: readonly (readonly Place[])[];
  /** Offsets of structures and of data, for pointers to point at what they must not. */
  readonly targets: readonly number[];
}

/** Name, offset and width of the fields of a structure. */
type Fields = readonly (readonly [name: string, at: number, bytes: number])[];

const HEADER: Fields = [
  ['magic', 0, 4],
  ['version', 4, 4],
  ['backing_file_offset', 8, 8],
  ['backing_file_size', 16, 4],
  ['cluster_bits', 20, 4],
  ['size', 24, 8],
  ['crypt_method', 32, 4],
  ['l1_size', 36, 4],
  ['l1_table_offset', 40, 8],
  ['refcount_table_offset', 48, 8],
  ['refcount_table_clusters', 56, 4],
  ['nb_snapshots', 60, 4],
  ['snapshots_offset', 64, 8],
];
const HEADER_V3: Fields = [
  ['incompatible_features', 72, 8],
  ['compatible_features', 80, 8],
  ['autoclear_features', 88, 8],
  ['refcount_order', 96, 4],
  ['header_length', 100, 4],
  ['compression_type', 104, 1],
];
const SNAPSHOT: Fields = [
  ['l1_table_offset', 0, 8],
  ['l1_size', 8, 4],
  ['id_size', 12, 2],
  ['name_size', 14, 2],
  ['vm_state_size', 32, 4],
  ['extra_data_size', 36, 4],
  ['disk_size', 48, 8],
];
const BITMAP: Fields = [
  ['table_offset', 0, 8],
  ['table_size', 8, 4],
  ['flags', 12, 4],
  ['type', 16, 1],
  ['granularity_bits', 17, 1],
  ['name_size', 18, 2],
  ['extra_data_size', 20, 4],
];
const BITMAPS_EXTENSION = 0x2385_2875;
const OFFSET = 0x00ff_ffff_ffff_fe00n;
const COMPRESSED = 1n << 62n;

/** Finds the parts of a valid image. */
export function placesOf(image: Uint8Array): Places {
  const bytes = new DataView(image.buffer, image.byteOffset, image.length);
  const u32 = (at: number): number => bytes.getUint32(at);
  const u64 = (at: number): number => Number(bytes.getBigUint64(at) & OFFSET);
  const clusterSize = 2 ** u32(20);
  const v3 = u32(4) === 3;
  const extended = v3 && (u32(76) & 16) !== 0;
  const targets = new Set<number>([0]);
  const tables: Place[][] = [];

  const fieldsAt = (what: string, at: number, fields: Fields): Place[] =>
    fields.map(([name, from, length]) => ({
      what: `${what}: ${name}`,
      at: at + from,
      bytes: length,
    }));
  const entries = (what: string, at: number, count: number, size = 8): Place[] => {
    targets.add(at);
    const most = Math.min(count, 4096);
    return Array.from({ length: most }, (_, index) => ({
      what: `${what}[${index}]`,
      at: at + index * size,
      bytes: size,
    }));
  };
  const mapping = (what: string, l1At: number, l1Size: number): void => {
    const l1 = entries(`${what}L1`, l1At, l1Size);
    tables.push(l1);
    for (const { at } of l1) {
      const table = u64(at);
      if (table === 0 || targets.has(table)) continue;
      const l2 = entries(`${what}L2`, table, clusterSize / 8);
      // entries that say something, and a few that do not
      const used = l2.filter((place) => bytes.getBigUint64(place.at) !== 0n);
      tables.push([...used, ...l2.slice(0, 8), ...l2.slice(-2)]);
      for (const place of extended ? used.filter((_, index) => index % 2 === 0) : used) {
        const entry = bytes.getBigUint64(place.at);
        if ((entry & COMPRESSED) !== 0n) tables.push(entries('compressed data', u64(place.at), 16));
        else if ((entry & OFFSET) !== 0n) targets.add(u64(place.at));
      }
    }
  };

  const header = [
    ...fieldsAt('header', 0, HEADER),
    ...(v3 ? fieldsAt('header', 0, HEADER_V3) : []),
  ];
  mapping('', u64(40), u32(36));
  const refcounts = entries('refcount table', u64(48), (u32(56) * clusterSize) / 8);
  tables.push(refcounts.slice(0, 4));
  for (const { at } of refcounts)
    if (u64(at) !== 0) tables.push(entries('refcounts', u64(at), Math.min(16, clusterSize / 8)));
  const extensions: Place[] = [];
  for (let at = v3 ? u32(100) : 72; u32(at) !== 0; at += 8 + Math.ceil(u32(at + 4) / 8) * 8) {
    const [type, length] = [u32(at), u32(at + 4)];
    extensions.push(
      { what: 'extension: type', at, bytes: 4 },
      { what: 'extension: length', at: at + 4, bytes: 4 },
      ...entries('extension: data', at + 8, Math.min(6, Math.ceil(length / 8))),
    );
    if (type === BITMAPS_EXTENSION) tables.push(...bitmapPlaces(at + 8));
  }
  tables.push(...snapshotPlaces());
  const name = u64(8) === 0 ? [] : [{ what: 'backing name', at: u64(8), bytes: 4 }];
  const groups = [header, [...extensions, ...name], ...tables].filter((group) => group.length > 0);
  return { clusterSize, length: image.length, groups, targets: [...targets] };

  function snapshotPlaces(): Place[][] {
    const found: Place[][] = [];
    let at = u64(64);
    for (let left = u32(60); left > 0; left--) {
      found.push(fieldsAt('snapshot', at, SNAPSHOT));
      mapping('snapshot ', u64(at), u32(at + 8));
      const rest = u32(at + 36) + bytes.getUint16(at + 12) + bytes.getUint16(at + 14);
      at = Math.ceil((at + 40 + rest) / 8) * 8;
    }
    return found;
  }

  function bitmapPlaces(extension: number): Place[][] {
    const found: Place[][] = [];
    let at = u64(extension + 16);
    targets.add(at);
    for (let left = u32(extension); left > 0; left--) {
      found.push(fieldsAt('bitmap', at, BITMAP));
      found.push(entries('bitmap table', u64(at), u32(at + 8)));
      at = Math.ceil((at + 24 + u32(at + 20) + bytes.getUint16(at + 18)) / 8) * 8;
    }
    return found;
  }
}
