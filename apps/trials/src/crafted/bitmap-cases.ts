import { type CraftedCase, type Expected, STANDARD_VIEW } from './case.ts';
import { PLACE, qcow2 } from './qcow2.ts';
import { entries64 } from './sparse.ts';

const CLUSTER = 65536;
const BITMAPS = 0x2385_2875;
/** Clusters of the directory, and of the bitmap's table. */
const DIRECTORY = PLACE.end;
const TABLE = PLACE.end + 1;

/** An entry of the directory; fields as they are said to be. */
interface Entry {
  readonly tableAt: bigint;
  readonly tableSize: number;
  readonly flags: number;
  readonly type: number;
  readonly granularityBits: number;
  readonly name: string;
  readonly nameSize: number;
  readonly extraSize: number;
}

function entryOf(change: Partial<Entry>): Uint8Array {
  const name = Buffer.from(change.name ?? 'one');
  const bytes = Buffer.alloc(Math.ceil((24 + name.length) / 8) * 8);
  bytes.writeBigUInt64BE(BigInt.asUintN(64, change.tableAt ?? BigInt(TABLE * CLUSTER)), 0);
  bytes.writeUInt32BE(change.tableSize ?? 1, 8);
  bytes.writeUInt32BE(change.flags ?? 2, 12);
  bytes.writeUInt8(change.type ?? 1, 16);
  bytes.writeUInt8(change.granularityBits ?? 16, 17);
  bytes.writeUInt16BE(change.nameSize ?? name.length, 18);
  bytes.writeUInt32BE(change.extraSize ?? 0, 20);
  bytes.set(name, 24);
  return bytes;
}

/** What the extension says; defaults are right for the entries. */
interface Directory {
  readonly count: number;
  readonly reserved: number;
  readonly size: bigint;
  readonly at: bigint;
}

function bitmaps(
  name: string,
  because: string,
  expected: Expected,
  qemu: CraftedCase['qemu'],
  entries: readonly Partial<Entry>[],
  change: Partial<Directory> = {},
): CraftedCase {
  const directory = Buffer.concat(entries.map(entryOf));
  const { count = entries.length, reserved = 0, size = BigInt(directory.length) } = change;
  const { at = BigInt(DIRECTORY * CLUSTER) } = change;
  const image = qcow2({
    header: { autoclear: 1 },
    extensions: [
      { type: BITMAPS, data: entries64([(BigInt(count) << 32n) | BigInt(reserved), size, at]) },
    ],
    refcounts: [1, 1, 1, 1, 1, 1, 1, 1],
    length: (PLACE.end + 2) * CLUSTER,
    more: [{ at: DIRECTORY * CLUSTER, bytes: directory }],
  });
  return { name, because, expected, qemu, image };
}

/** The disk is read, whatever the bitmaps are; who then looks at them is refused. */
const refused = (code: string): Expected => ({ view: STANDARD_VIEW, codes: [code], at: 'check' });
const corrupt = refused('IMAGE_CORRUPT');
/** The disk is read, and a check finds what is wrong. */
const found: Expected = { view: STANDARD_VIEW, check: ['corruptions'] };
const sound: Expected = { view: STANDARD_VIEW, check: ['clean'] };
const cluster = (index: number): bigint => BigInt(index * CLUSTER);

/** Bitmaps: their directory, their tables and their names. */
export const bitmapCases: readonly CraftedCase[] = [
  bitmaps('bitmap_valid', 'a bitmap, and nothing wrong with it', sound, 'reads', [{}]),
  bitmaps('bitmaps_65536', '65,536 bitmaps', refused('IMAGE_LIMIT'), 'refuses', [{}], {
    count: 65_536,
    size: 1n << 20n,
  }),
  bitmaps('bitmaps_2_32_1', '2^32-1 bitmaps', refused('IMAGE_LIMIT'), 'refuses', [{}], {
    count: 0xffff_ffff,
  }),
  bitmaps('bitmap_dir_2_40', 'a directory of a tebibyte', refused('IMAGE_LIMIT'), 'refuses', [{}], {
    size: 1n << 40n,
  }),
  bitmaps(
    'bitmap_dir_short',
    'the directory ends before its second bitmap',
    corrupt,
    'refuses',
    [{}],
    { count: 2 },
  ),
  bitmaps(
    'bitmap_dir_long',
    'the directory goes on behind its bitmaps',
    corrupt,
    'refuses',
    [{}, { name: 'two' }],
    { count: 1 },
  ),
  bitmaps('bitmaps_none', 'the extension counts no bitmaps', corrupt, 'refuses', [{}], {
    count: 0,
  }),
  bitmaps(
    'bitmaps_reserved',
    'a reserved field of the extension says something',
    corrupt,
    'refuses',
    [{}],
    { reserved: 1 },
  ),
  bitmaps(
    'bitmap_dir_past_end',
    'the directory lies past the end of the file',
    corrupt,
    'refuses',
    [{}],
    { at: 1n << 40n },
  ),
  bitmaps(
    'bitmap_dir_is_refblock',
    'the directory is the refcount block',
    corrupt,
    'refuses',
    [{}],
    { at: cluster(PLACE.refblock) },
  ),
  bitmaps('bitmap_granularity_8', 'a granularity of 256 bytes', corrupt, 'refuses', [
    { granularityBits: 8 },
  ]),
  bitmaps('bitmap_granularity_32', 'a granularity of 4 GiB', corrupt, 'refuses', [
    { granularityBits: 32 },
  ]),
  bitmaps('bitmap_granularity_255', 'a granularity of 2^255 bytes', corrupt, 'refuses', [
    { granularityBits: 255 },
  ]),
  bitmaps('bitmap_type_2', 'a bitmap of another kind', corrupt, 'refuses', [{ type: 2 }]),
  bitmaps('bitmap_flags', 'unknown flags', corrupt, 'refuses', [{ flags: 0x8000_0000 }]),
  bitmaps(
    'bitmap_table_past_end',
    'the table lies past the end of the file',
    found,
    'accepts-broken',
    [{ tableAt: 1n << 40n }],
  ),
  bitmaps('bitmap_table_2_31', 'a table of 2^31 entries', refused('IMAGE_LIMIT'), 'refuses', [
    { tableSize: 2 ** 31 },
  ]),
  bitmaps('bitmap_table_is_header', 'the table is the header', corrupt, 'refuses', [
    { tableAt: 0n },
  ]),
  bitmaps('bitmap_table_is_l1', 'the table is the L1 table', found, 'refuses', [
    { tableAt: cluster(PLACE.l1) },
  ]),
  bitmaps('bitmap_table_is_data', 'the table is a data cluster', found, 'refuses', [
    { tableAt: cluster(PLACE.data) },
  ]),
  bitmaps('bitmap_table_unaligned', 'the table does not begin on a cluster', corrupt, 'refuses', [
    { tableAt: cluster(TABLE) + 8n },
  ]),
  bitmaps(
    'bitmap_table_above_2_53',
    'the table lies where a JavaScript number would round',
    corrupt,
    'accepts-broken',
    [{ tableAt: (1n << 55n) + cluster(1) }],
  ),
  bitmaps('bitmap_tables_shared', 'two bitmaps share a table', found, 'accepts-broken', [
    {},
    { name: 'two' },
  ]),
  bitmaps('bitmap_same_name', 'two bitmaps have one name', corrupt, 'refuses', [{}, {}]),
  bitmaps('bitmap_name_0', 'a name of no bytes', corrupt, 'refuses', [{ nameSize: 0 }]),
  bitmaps('bitmap_name_1024', 'a name of 1,024 bytes', corrupt, 'refuses', [
    { name: 'x'.repeat(1024) },
  ]),
  bitmaps('bitmap_name_65535', 'a name that reaches past the directory', corrupt, 'refuses', [
    { nameSize: 0xffff },
  ]),
  bitmaps('bitmap_name_escape', 'a name that clears the screen', sound, 'reads', [
    { name: '\x1b[2J\x1b]0;x\x07' },
  ]),
  bitmaps('bitmap_name_nul', 'a name with a NUL inside', sound, 'reads', [{ name: 'one\0two' }]),
  bitmaps('bitmap_extra_2_32_1', '2^32-1 bytes of extra data', corrupt, 'refuses', [
    { extraSize: 0xffff_ffff },
  ]),
];
