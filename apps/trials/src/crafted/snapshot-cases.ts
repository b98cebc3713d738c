import { type CraftedCase, type Expected, STANDARD_VIEW } from './case.ts';
import { PLACE, qcow2 } from './qcow2.ts';
import { entries64 } from './sparse.ts';

const CLUSTER = 65536;
/** Clusters of the L1 tables of two snapshots, and of the snapshot table. */
const L1 = PLACE.end;
const OTHER_L1 = PLACE.end + 1;
const TABLE = PLACE.end + 2;

interface Entry {
  readonly l1At: bigint;
  readonly l1Size: number;
  readonly id: string | Uint8Array;
  readonly name: string | Uint8Array;
  readonly nameSize: number;
  /** Bytes of extra data that there are, and that there are said to be. */
  readonly extra: number;
  readonly extraSize: number;
  readonly diskSize: bigint;
}

function entryOf(change: Partial<Entry>): Uint8Array {
  const { extra = 24, diskSize = 1n << 20n } = change;
  const [id, name] = [Buffer.from(change.id ?? '1'), Buffer.from(change.name ?? 'one')];
  const bytes = Buffer.alloc(Math.ceil((40 + extra + id.length + name.length) / 8) * 8);
  bytes.writeBigUInt64BE(BigInt.asUintN(64, change.l1At ?? BigInt(L1 * CLUSTER)), 0);
  bytes.writeUInt32BE(change.l1Size ?? 1, 8);
  bytes.writeUInt16BE(id.length, 12);
  bytes.writeUInt16BE(change.nameSize ?? name.length, 14);
  bytes.writeUInt32BE(change.extraSize ?? extra, 36);
  if (extra >= 16) bytes.writeBigUInt64BE(BigInt.asUintN(64, diskSize), 48);
  if (extra >= 24) bytes.writeBigInt64BE(-1n, 56);
  bytes.set(id, 40 + extra);
  bytes.set(name, 40 + extra + id.length);
  return bytes;
}

/** The disk, and snapshots of which each has an L1 table without entries. */
function snapshots(
  name: string,
  because: string,
  expected: Expected,
  qemu: CraftedCase['qemu'],
  entries: readonly Partial<Entry>[],
  header: { readonly count?: number; readonly at?: number } = {},
): CraftedCase {
  const table = Buffer.concat(entries.map(entryOf));
  const tableClusters = Math.max(1, Math.ceil(table.length / CLUSTER));
  const image = qcow2({
    header: {
      snapshots: header.count ?? entries.length,
      snapshotsOffset: header.at ?? TABLE * CLUSTER,
    },
    refcounts: new Array<number>(TABLE + tableClusters).fill(1),
    length: (TABLE + tableClusters) * CLUSTER,
    more: [
      { at: L1 * CLUSTER, bytes: entries64([0n]) },
      { at: TABLE * CLUSTER, bytes: table },
    ],
  });
  return { name, because, expected, qemu, image };
}

const second: Partial<Entry> = { id: '2', name: 'two', l1At: BigInt(OTHER_L1 * CLUSTER) };
const NO_TEXT = new Uint8Array([0xff, 0xc0, 0x80]);
const cluster = (index: number): bigint => BigInt(index * CLUSTER);
/** The disk is read, whatever the snapshots are; who then looks at them is refused. */
const refused = (code: string): Expected => ({ view: STANDARD_VIEW, codes: [code], at: 'check' });
const corrupt = refused('IMAGE_CORRUPT');
const found: Expected = { view: STANDARD_VIEW, check: ['corruptions'] };
const sound: Expected = { view: STANDARD_VIEW, check: ['clean'] };

/** Internal snapshots: what their table says of its length, of mappings, and of names. */
export const snapshotCases: readonly CraftedCase[] = [
  snapshots('snapshots_valid', 'two snapshots, and nothing wrong with them', sound, 'reads', [
    {},
    second,
  ]),
  snapshots(
    'snapshot_extra_1024',
    '1,024 bytes of extra data, the most there may be',
    sound,
    'reads',
    [{ extra: 1024 }, second],
  ),
  snapshots('snapshot_extra_1025', '1,025 bytes of extra data', corrupt, 'refuses', [
    { extra: 1025 },
    second,
  ]),
  snapshots('snapshot_extra_2_32_1', '2^32-1 bytes of extra data', corrupt, 'refuses', [
    { extraSize: 0xffff_ffff },
    second,
  ]),
  snapshots('snapshot_extra_0', 'no extra data, which version 3 demands', found, 'accepts-broken', [
    { extra: 0 },
    second,
  ]),
  snapshots(
    'snapshot_extra_15',
    'extra data that ends inside the size of the disk',
    found,
    'accepts-broken',
    [{ extra: 15 }, second],
  ),
  snapshots(
    'snapshots_1025',
    '1,025 snapshots',
    { codes: ['IMAGE_LIMIT'], at: 'open' },
    'accepts-broken',
    [{}, second],
    { count: 1025 },
  ),
  snapshots(
    'snapshots_65537',
    '65,537 snapshots, more than QEMU takes',
    { codes: ['IMAGE_LIMIT'], at: 'open' },
    'refuses',
    [{}, second],
    { count: 65_537 },
  ),
  snapshots(
    'snapshots_past_end',
    'the table reaches past the end of the file',
    corrupt,
    'accepts-broken',
    Array.from({ length: 900 }, (_, index) => ({ id: String(index), l1Size: 0 })),
    { count: 1024 },
  ),
  snapshots(
    'snapshot_table_is_refblock',
    'the snapshot table is the refcount block',
    corrupt,
    'accepts-broken',
    [{}],
    { at: PLACE.refblock * CLUSTER },
  ),
  snapshots(
    'snapshot_table_is_data',
    'the snapshot table is a data cluster',
    corrupt,
    'refuses',
    [{}],
    { at: PLACE.data * CLUSTER },
  ),
  snapshots(
    'snapshot_l1_is_active',
    "a snapshot's L1 table is the active one",
    found,
    'accepts-broken',
    [{ l1At: cluster(PLACE.l1) }],
  ),
  snapshots(
    'snapshot_l1_is_data',
    "a snapshot's L1 table is a data cluster",
    found,
    'accepts-broken',
    [{ l1At: cluster(PLACE.data) }],
  ),
  snapshots('snapshot_l1_shared', 'two snapshots share an L1 table', found, 'accepts-broken', [
    {},
    { ...second, l1At: cluster(L1) },
  ]),
  snapshots(
    'snapshot_l1_overlaps',
    "a snapshot's L1 table reaches into that of another one",
    found,
    'accepts-broken',
    [{ l1Size: CLUSTER / 8 + 1 }, second],
  ),
  snapshots(
    'snapshot_l1_is_table',
    "a snapshot's L1 table is the snapshot table",
    found,
    'accepts-broken',
    [{ l1At: cluster(TABLE) }],
  ),
  snapshots(
    'snapshot_l1_2_32_1',
    'an L1 table of 2^32-1 entries',
    refused('IMAGE_LIMIT'),
    'accepts-broken',
    [{ l1Size: 0xffff_ffff }],
  ),
  snapshots(
    'snapshot_l1_32mib',
    'the largest L1 table there may be, in a file that ends before it',
    found,
    'accepts-broken',
    [{ l1Size: 2 ** 22 }],
  ),
  snapshots('snapshot_size_2_63', 'the disk had 2^63 bytes', sound, 'reads', [
    { diskSize: 1n << 63n },
    second,
  ]),
  snapshots('snapshot_name_65535', 'a name that reaches past the file', found, 'accepts-broken', [
    { nameSize: 0xffff },
  ]),
  snapshots('snapshot_name_escape', 'a name that clears the screen', sound, 'reads', [
    { name: '\x1b[2J\x1b]0;x\x07' },
    second,
  ]),
  snapshots('snapshot_name_nul', 'a name and an id with a NUL inside', sound, 'reads', [
    { id: '1\0', name: 'one\0two' },
    second,
  ]),
  snapshots('snapshot_name_no_text', 'names that are no text', sound, 'reads', [
    { id: NO_TEXT, name: NO_TEXT },
    second,
  ]),
  snapshots('snapshot_same_id', 'two snapshots have one id', sound, 'reads', [
    {},
    { ...second, id: '1' },
  ]),
];
