import {
  type BackingReference,
  type CreateImageOptions,
  type Extent,
  type ExtentBatch,
  ExtentList,
  type Image,
  ImageError,
  type ImageFormat,
  type ImageMark,
} from '@downfold/image';
import type { MemoryDisk } from '@downfold/storage-memory';
import { memoryBackend } from '@downfold/storage-memory';
import {
  type ByteLength,
  byteLength,
  type GuestOffset,
  type HostOffset,
  hostOffset,
} from '@downfold/units';

/**
 * A format of 100 lines, read-only, whose layers are written down as text: a JSON header, then one slot a cell. Slots lie
 * in the file in swapped pairs, so that neighbours on the disk are not always neighbours in the file.
 */
export interface ToyLayer {
  /** One letter a cell: `d`ata, `z`ero, `p`reallocated zero, `c`ompressed, `u`nallocated. */
  readonly cells: string;
  /** Bytes of a cell. */
  readonly cellSize: number;
  /** Bytes; the last cell may be cut. */
  readonly size: number;
  /** Makes its data differ from that of other layers; see `toyByte`. */
  readonly fill: number;
  readonly backing?: BackingReference;
  readonly mark?: ImageMark;
}

const MAGIC = 'TOY ';
const DATA_AT = 4096;
/** Cells of one batch of extents: few, so that merges have to cross batches. */
const BATCH_CELLS = 3;

/** Bytes from the start of the file where a cell is stored. */
const slotAt = (layer: ToyLayer, cell: number): number => DATA_AT + (cell ^ 2) * layer.cellSize;

/** What a layer holds at byte `at` of the disk, where it holds data. */
export function toyByte(layer: ToyLayer, at: number): number {
  return (layer.fill * 37 + at) % 251;
}

/** Writes a layer to a memory disk, and makes its directory. */
export async function putToy(disk: MemoryDisk, path: string, layer: ToyLayer): Promise<void> {
  disk.makeDirectory(path.slice(0, path.lastIndexOf('/')) || '/');
  await using storage = await memoryBackend(disk).create(path, { secret: false });
  const head = new TextEncoder().encode(`${MAGIC}${JSON.stringify(layer)}\n`);
  await storage.write(hostOffset(0), head);
  for (const [cell, letter] of [...layer.cells].entries()) {
    const bytes = Uint8Array.from({ length: layer.cellSize }, (_, index) => {
      const byte = toyByte(layer, cell * layer.cellSize + index);
      return letter === 'd' ? byte : letter === 'c' ? 255 - byte : 0xee;
    });
    await storage.write(hostOffset(slotAt(layer, cell)), bytes);
  }
}

/** The toy format; `recognised` counts how often it was asked to guess. */
export function toyFormat(counters = { recognised: 0 }): ImageFormat {
  return {
    name: 'toy',
    abilities: new Set(['backing', 'zero', 'mark'] as const),
    recognises: (head) => {
      counters.recognised++;
      return new TextDecoder().decode(head).startsWith(MAGIC);
    },
    open: async (storage) => {
      const head = new Uint8Array(DATA_AT);
      await storage.read(hostOffset(0), head);
      const text = new TextDecoder().decode(head);
      if (!text.startsWith(MAGIC))
        throw new ImageError('IMAGE_NOT_RECOGNISED', `${storage.label}: is no toy`);
      const layer = JSON.parse(text.slice(MAGIC.length, text.indexOf('\n'))) as ToyLayer;
      return toyImage(storage, layer);
    },
    create: refuse,
  };
}

/** A format without a header: the whole file is data. */
export const flatFormat: ImageFormat<CreateImageOptions> = {
  name: 'flat',
  abilities: new Set(),
  recognises: () => false,
  open: async (storage) => {
    const size = await storage.length();
    const layer = { cells: 'd', cellSize: size, size, fill: 0 };
    return { ...toyImage(storage, layer), format: 'flat' };
  },
  create: refuse,
};

async function refuse(): Promise<never> {
  throw new ImageError('IMAGE_READ_ONLY', 'toys are read-only');
}

function toyImage(storage: Image['data'], layer: ToyLayer): Image {
  const { cells, cellSize, size } = layer;
  const read: Image['read'] = async (offset, target, below) => {
    if (offset + target.length > size) throw new ImageError('IMAGE_RANGE', 'past the end');
    for (let at: number = offset; at < offset + target.length; ) {
      const cell = Math.floor(at / cellSize);
      const end = Math.min((cell + 1) * cellSize, offset + target.length);
      const part = target.subarray(at - offset, end - offset);
      const from = hostOffset(slotAt(layer, cell) + (at % cellSize));
      if (cells[cell] === 'u' && below !== null) await below(at as GuestOffset, part);
      else if (cells[cell] === 'd' || cells[cell] === 'c') await storage.read(from, part);
      else part.fill(0);
      if (cells[cell] === 'c') for (let i = 0; i < part.length; i++) part[i] = 255 - (part[i] ?? 0);
      at = end;
    }
  };
  return {
    format: 'toy',
    label: storage.label,
    writable: false,
    geometry: {
      virtualSize: byteLength(size),
      clusterSize: byteLength(cellSize),
      allocationGranularity: byteLength(cellSize),
    },
    backing: layer.backing ?? null,
    encrypted: false,
    mark: layer.mark ?? null,
    fingerprint: '00000000',
    file: storage,
    data: storage,
    describe: async () => ({ dirty: false, encrypted: false, snapshots: [], specific: {} }),
    extents: (range) => extentsOf(layer, range.offset, range.offset + range.length),
    read,
    write: refuse,
    copyFrom: refuse,
    writeZeroes: refuse,
    deallocate: refuse,
    resize: refuse,
    setBacking: refuse,
    assertRoomFor: refuse,
    setMark: refuse,
    flush: refuse,
    reclaimLeaks: refuse,
    stage: refuse,
    check: refuse,
    [Symbol.asyncDispose]: () => storage[Symbol.asyncDispose](),
  };
}

async function* extentsOf(
  layer: ToyLayer,
  start: number,
  end: number,
): AsyncGenerator<ExtentBatch, void, undefined> {
  let batch: Extent[] = [];
  for (let at = start; at < end; ) {
    const cell = Math.floor(at / layer.cellSize);
    const stop = Math.min((cell + 1) * layer.cellSize, end);
    const range = { offset: at as GuestOffset, length: (stop - at) as ByteLength };
    batch.push({ ...range, ...statusOf(layer, cell, at) });
    at = stop;
    if (batch.length < BATCH_CELLS && at < end) continue;
    yield ExtentList.of(batch);
    batch = [];
  }
}

function statusOf(layer: ToyLayer, cell: number, at: number): Extent {
  const host = (slotAt(layer, cell) + (at % layer.cellSize)) as HostOffset;
  const status = {
    d: { status: 'data', host },
    c: { status: 'compressed' },
    z: { status: 'zero', preallocated: false },
    p: { status: 'zero', preallocated: true },
    u: { status: 'unallocated' },
  }[layer.cells[cell] ?? 'u'];
  return status as Extent;
}
