import {
  type BackingReference,
  type CreateImageOptions,
  type Extent,
  ExtentList,
  type Image,
  ImageError,
  type ImageFormat,
  type ImageMark,
} from '@downfold/image';
import type { OpenMode, Storage } from '@downfold/storage';
import {
  alignDown,
  byteLength,
  ceilDivide,
  type GuestOffset,
  guestOffset,
  hostOffset,
  rangeBetween,
  rangeEnd,
  splitRange,
} from '@downfold/units';

/** Bytes of a cluster; the first one holds the head. */
export const CLUSTER = 4096;
const MAGIC = 'TOY1';

/** All but the data: `cells` has a letter a cluster, `d` data, `z` zeros, `-` unallocated. */
interface Head {
  readonly size: number;
  readonly backing: BackingReference | null;
  readonly mark: ImageMark | null;
  readonly cells: string;
}

/**
 * A format that exists to test the engine: a head in JSON, then each cluster of the disk at its own place. It holds no order between
 * data and head: crashes are for formats that mean it.
 */
export const toy: ImageFormat = {
  name: 'toy',
  abilities: new Set(['backing', 'zero', 'deallocate', 'grow', 'mark']),
  recognises: (bytes) => new TextDecoder().decode(bytes.subarray(0, MAGIC.length)) === MAGIC,
  open: async (storage, { mode }) => toyImage(storage, await readHead(storage), mode),
  create: async (storage, { virtualSize, backing = null }: CreateImageOptions) => {
    const cells = '-'.repeat(ceilDivide(virtualSize, CLUSTER));
    const image = toyImage(storage, { size: virtualSize, backing, mark: null, cells }, 'write');
    await image.flush();
    return image;
  },
};

async function readHead(storage: Storage): Promise<Head> {
  const bytes = new Uint8Array(CLUSTER);
  await storage.read(hostOffset(0), bytes);
  const text = new TextDecoder().decode(bytes);
  if (text.startsWith(MAGIC))
    return JSON.parse(text.slice(MAGIC.length, text.indexOf('\n'))) as Head;
  throw new ImageError('IMAGE_NOT_RECOGNISED', `${storage.label}: is no toy`);
}

function toyImage(storage: Storage, read: Head, mode: OpenMode): Image {
  let head = read;
  const place = (at: number): number => CLUSTER + at;
  const cellAt = (at: number): string => head.cells[Math.floor(at / CLUSTER)] ?? '-';
  const setCell = (at: number, cell: string): void => {
    const index = Math.floor(at / CLUSTER);
    head = { ...head, cells: head.cells.slice(0, index) + cell + head.cells.slice(index + 1) };
  };
  const unsupported = async (): Promise<never> => {
    throw new ImageError('IMAGE_UNSUPPORTED', `${storage.label}: a toy cannot do that`);
  };
  const save = async (change: Partial<Head>): Promise<void> => {
    head = { ...head, ...change };
    const text = `${MAGIC}${JSON.stringify(head)}\n`.padEnd(CLUSTER, ' ');
    await storage.write(hostOffset(0), new TextEncoder().encode(text), { what: 'head' });
    await storage.flush('toy: all');
  };
  /** Makes the cluster at `at` data, with what it shows. */
  const fill = async (at: number, below: Parameters<Image['read']>[2]): Promise<void> => {
    if (cellAt(at) === 'd') return;
    const start = alignDown(at, CLUSTER);
    const bytes = new Uint8Array(CLUSTER);
    if (cellAt(at) === '-') await below?.(guestOffset(start), bytes);
    await storage.write(hostOffset(place(start)), bytes, { what: 'fill' });
    setCell(at, 'd');
  };
  const image: Image = {
    format: 'toy',
    label: storage.label,
    writable: mode === 'write',
    get geometry() {
      const unit = byteLength(CLUSTER);
      return { virtualSize: byteLength(head.size), clusterSize: unit, allocationGranularity: unit };
    },
    get backing() {
      return head.backing;
    },
    encrypted: false,
    get mark() {
      return head.mark;
    },
    get fingerprint() {
      return JSON.stringify([head.size, head.backing]);
    },
    file: storage,
    data: storage,
    describe: async () => ({ dirty: false, encrypted: false, snapshots: [], specific: {} }),
    extents: async function* (range) {
      for (const { offset, length } of splitRange(range, CLUSTER))
        yield ExtentList.of([extentAt(cellAt(offset), offset, length, place(offset))]);
    },
    read: async (offset, target, below) => {
      const range = rangeBetween(offset, offset + target.length);
      for (const piece of splitRange(range, CLUSTER)) {
        const from = piece.offset - offset;
        const part = target.subarray(from, from + piece.length);
        const cell = cellAt(piece.offset);
        if (cell === 'd') await storage.read(hostOffset(place(piece.offset)), part);
        else if (cell === '-' && below !== null) await below(piece.offset, part);
        else part.fill(0);
      }
    },
    write: async (offset, source, options) => {
      const range = rangeBetween(offset, offset + source.length);
      for (const piece of splitRange(range, CLUSTER)) await fill(piece.offset, options.fill);
      await storage.write(hostOffset(place(offset)), source, { what: 'data' });
    },
    copyFrom: async (pieces, options) => {
      for (const { source, from, offset, length } of pieces) {
        const bytes = new Uint8Array(length);
        await source.read(from, bytes);
        await image.write(offset, bytes, options);
      }
    },
    writeZeroes: async (range, options) => {
      for (const piece of splitRange(range, CLUSTER)) {
        const isWhole = piece.length === CLUSTER || rangeEnd(piece) === head.size;
        if (isWhole && piece.offset % CLUSTER === 0) setCell(piece.offset, 'z');
        else await image.write(piece.offset, new Uint8Array(piece.length), options);
      }
    },
    deallocate: async (range) => {
      for (const piece of splitRange(range, CLUSTER)) setCell(piece.offset, '-');
    },
    resize: async (size) => {
      const missing = ceilDivide(size, CLUSTER) - head.cells.length;
      await save({ size, cells: head.cells + (head.backing === null ? '-' : 'z').repeat(missing) });
    },
    setBacking: (backing) => save({ backing }),
    assertRoomFor: async () => {},
    setMark: (mark) => save({ mark }),
    flush: () => save({}),
    reclaimLeaks: async () => 0,
    stage: unsupported,
    check: async () => ({
      corruptions: 0,
      leaks: 0,
      totalClusters: head.cells.length,
      allocatedClusters: 0,
      fragmentedClusters: 0,
      compressedClusters: 0,
      imageEndOffset: 0,
    }),
    [Symbol.asyncDispose]: () => storage[Symbol.asyncDispose](),
  };
  return image;
}

function extentAt(
  cell: string,
  offset: GuestOffset,
  length: Extent['length'],
  host: number,
): Extent {
  const range = { offset, length };
  if (cell === 'd') return { ...range, status: 'data', host: hostOffset(host) };
  if (cell === 'z') return { ...range, status: 'zero', preallocated: false };
  return { ...range, status: 'unallocated' };
}
