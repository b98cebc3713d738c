import { DEFAULT_IMAGE_LIMITS, type ImageLimits, type OpenImageOptions } from '@downfold/image';
import type { Storage } from '@downfold/storage';
import { hostOffset } from '@downfold/units';
import { bitmapSet } from './bitmap-set.ts';
import { readBitmaps } from './bitmaps.ts';
import { imageError } from './corrupt.ts';
import { loadLuks, readEncryption } from './encryption.ts';
import { geometryOf } from './geometry.ts';
import { claimedClusterSize, type Header, parseHeader } from './header.ts';
import { MetadataCache } from './metadata-cache.ts';
import { metadataOf } from './open-metadata.ts';
import { isDirty, repairDirty } from './repair-dirty.ts';
import type { Qcow2State, Writer } from './state.ts';
import { ENTRY_BYTES, INCOMPATIBLE, SECTOR_BYTES } from './structures.ts';
import { wordsOf } from './words.ts';

/**
 * Opens an image: reads and checks header and L1 table, and for writing the refcount table. Writes nothing, unless it is opened for writing
 * and dirty: then its refcounts are repaired.
 */
export async function openState(storage: Storage, options: OpenImageOptions): Promise<Qcow2State> {
  const opened = new AsyncDisposableStack();
  try {
    return await openWith(storage, opened, options);
  } catch (cause) {
    // on failure the image's own file is the caller's, the data file is nobody's
    await opened.disposeAsync();
    throw cause;
  }
}

async function openWith(
  storage: Storage,
  opened: AsyncDisposableStack,
  options: OpenImageOptions,
): Promise<Qcow2State> {
  const { label } = storage;
  const limits: ImageLimits = { ...DEFAULT_IMAGE_LIMITS, ...options.limits };
  const fileEnd = await storage.length();
  const head = new Uint8Array(SECTOR_BYTES);
  await storage.read(hostOffset(0), head, options);
  const headerCluster = new Uint8Array(claimedClusterSize(label, head, fileEnd));
  await storage.read(hostOffset(0), headerCluster, options);
  const header = parseHeader(label, headerCluster, fileEnd, limits);
  const geometry = geometryOf(
    header.clusterBits,
    (header.incompatible[1] & INCOMPATIBLE.extendedL2) !== 0,
    header.refcountOrder,
  );
  const l1Bytes = new Uint8Array(header.l1Size * ENTRY_BYTES);
  if (l1Bytes.length + geometry.clusterSize > limits.metadataBytes)
    throw imageError(
      'IMAGE_LIMIT',
      label,
      `L1 table of ${l1Bytes.length} bytes is above the memory limit`,
      header.l1TableOffset,
    );
  await storage.read(hostOffset(header.l1TableOffset), l1Bytes, options);
  const external = await openData(storage, header, options);
  opened.use(external);
  const encryption = await readEncryption(storage, header);
  const file = external ?? storage;
  const data =
    encryption === null
      ? file
      : await (await loadLuks()).decrypted(storage, encryption, file, 0, {
          ...options,
          keyWork: limits.keyWork,
        });
  const state: Qcow2State = {
    storage,
    data,
    external,
    luks: encryption?.luks ?? null,
    label,
    limits,
    mending: false,
    mendedFrom: null,
    geometry,
    header,
    headerCluster,
    fileEnd,
    l1: wordsOf(l1Bytes),
    l2: new MetadataCache(geometry.clusterSize),
    lastCompressed: null,
    compressedAnew: 0,
    writer: null,
    staged: null,
    stagedOn: null,
    closed: false,
    ownsFile: true,
  };
  if (options.mode === 'read') return state;
  assertNotCorrupt(state);
  if (!isDirty(state)) return { ...state, writer: await openWriter(state) };
  const dirty = { ...state, mendedFrom: headerCluster.slice(), writer: bareWriter(state) };
  await repairDirty(dirty);
  return { ...dirty, writer: await openWriter(dirty) };
}

/**
 * Opens an image that may be damaged, to repair it: its header can be written, and nothing else is known of it. Writes nothing; `storage` stays
 * the caller's. `mending`: also its snapshot table.
 */
export async function openForRepair(
  storage: Storage,
  options: Omit<OpenImageOptions, 'mode'>,
  mending: boolean,
): Promise<Qcow2State> {
  const state = await openState(storage, { ...options, mode: 'read', allowLocked: true });
  return { ...state, mending, writer: bareWriter(state) };
}

/** The external file of guest data; null: there is none. @throws ImageError `IMAGE_UNSUPPORTED` when it is another one, and none may be opened. */
async function openData(
  storage: Storage,
  { dataFile }: Header,
  { openDataFile, mode }: OpenImageOptions,
): Promise<Storage | null> {
  if (dataFile === null) return null;
  if (openDataFile !== undefined) return openDataFile(dataFile.name, mode);
  const feature = 'external data file';
  const problem = `uses an ${feature} ('${dataFile.name}'), which is not opened unless it is allowed`;
  throw imageError('IMAGE_UNSUPPORTED', storage.label, problem, 72, { feature });
}

function assertNotCorrupt({ header, label }: Qcow2State): void {
  if (header.incompatible[1] & INCOMPATIBLE.corrupt)
    throw imageError(
      'IMAGE_NEEDS_REPAIR',
      label,
      'is marked corrupt; repair it first: downfold check -r all',
    );
}

async function openWriter(state: Qcow2State): Promise<Writer> {
  const directory = await readBitmaps(state);
  return {
    ...bareWriter(state),
    ...(await metadataOf(state, directory)),
    bitmaps: bitmapSet(directory, state.header.size),
  };
}

/** A writer that knows nothing of the image but its header. */
function bareWriter({ geometry, header }: Qcow2State): Writer {
  const done = Promise.resolve();
  return {
    refcounts: {
      table: new Uint32Array(),
      changed: new Set(),
      moved: null,
      blocks: new MetadataCache(geometry.clusterSize),
    },
    metadata: new Map([[0, 'header']]),
    nextFree: 0,
    compressedAt: 0,
    releases: [],
    reads: new Set(),
    beforeReuse: new Set(),
    l1Changed: new Set(),
    // what an earlier process wrote may be in the system's memory only
    dataDirty: true,
    bitmaps: bitmapSet(null, header.size),
    failure: null,
    ends: { mutation: done, flush: done, header: done },
  };
}
