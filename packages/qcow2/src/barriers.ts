/**
 * The names of all barriers that qcow2 issues, each for the ordering rule it serves (W1 to W13, README.md). Crash tests
 * enumerate them and switch them off one at a time.
 */
export const BARRIER = {
  /** W1, W3, W4: data, refcounts and new L2 tables are durable before anything that points to them. */
  content: 'qcow2 W1 W3 W4: content and refcounts before mapping',
  /** W2: new refcount blocks are reachable before a mapping relies on what they count. */
  refcountTable: 'qcow2 W2: refcount table before mapping',
  /** W2: a moved refcount table is in the header before a mapping relies on it. */
  refcountTableMoved: 'qcow2 W2: header with moved refcount table',
  /** W5: the mapping is durable before what it let go loses its refcount; also the end of a flush. */
  mapping: 'qcow2 W5: mapping before release',
  /** W5: refcounts are lowered, durably, before host space is discarded and reused; also the end of a flush. */
  release: 'qcow2 W5: release before reuse',
  /** W6: guest data in place, no metadata, or what an earlier process left: the end of a flush. */
  data: 'qcow2 W6: data in place',
  /** W8, W9: autoclear bits are off, and bitmaps in use, before the first other write. */
  autoclear: 'qcow2 W8 W9: autoclear bits and bitmaps before the first write',
  /** W10: the corrupt bit. */
  corruptBit: 'qcow2 W10: corrupt bit',
  /** W11: the new backing name is durable before the sector that points to it. */
  backingName: 'qcow2 W11: backing name before header',
  /** W11: the sector that switches. */
  backingSwitch: 'qcow2 W11: header with new backing reference',
  /** W12: a larger L1 table is durable before the header points to it. */
  l1Content: 'qcow2 W12: larger L1 table before header',
  /** W12: the header points to the larger L1 table before the old one is released. */
  l1Switch: 'qcow2 W12: header with larger L1 table',
  /** W12: the header says the new size. */
  size: 'qcow2 W12: header with new size',
  /** W11: the header points to the staged mapping before what only the old one held is released. */
  publish: 'qcow2 W11: header with staged mapping',
  /** W11: the header names a snapshot table without the one that goes before what it held is released. */
  snapshotTable: 'qcow2 W11: header without snapshot',
  /** W11: the header points to the mapping of a snapshot before what only the old one held is released. */
  snapshotApplied: 'qcow2 W11: header with mapping of snapshot',
  /** W11: the data of a new header extension is durable before its head; its head, or what replaces its data. */
  extensionBody: 'qcow2 W11: extension before its head',
  extensionHead: 'qcow2 W11: extension',
  /** W9: the header says that the bitmaps are true, or no longer, before what that relies on goes. */
  bitmapsClaimed: 'qcow2 W9: header with autoclear bit of bitmaps',
  /** W7: the dirty bit is off, after refcounts are what the tables say. */
  repaired: 'qcow2 W7: header without dirty bit',
  /** W11: the header of another version, after all that it no longer says is gone. */
  amend: 'qcow2 W11: header of another version',
  /** All but the first sector of a new image is durable before that makes it one. */
  createContent: 'qcow2: new image before its header',
  /** A new image is durable when `create` resolves. */
  create: 'qcow2: new image',
} as const;
