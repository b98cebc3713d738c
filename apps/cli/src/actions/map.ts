import { type OpenChain, type OwnedExtent, openChain, subchainExtents } from '@downfold/chain';
import { ImageError } from '@downfold/image';
import {
  advance,
  byteLength,
  type GuestRange,
  guestOffset,
  rangeBetween,
  rangeEnd,
} from '@downfold/units';
import { type Access, environmentFor } from '../environment.ts';
import { parseBytes } from '../output/bytes.ts';
import { printPart } from '../output/print.ts';
import { absolute, namesOf } from '../paths.ts';

/** Options of `map`. */
export interface MapOptions extends Access {
  readonly format: string;
  readonly output: string;
  readonly startOffset?: string;
  readonly maxLength?: string;
}

/** One run of the map, as qemu-img counts: depth 0 is the leaf. */
interface Run {
  readonly start: number;
  length: number;
  readonly depth: number;
  readonly present: boolean;
  readonly zero: boolean;
  readonly data: boolean;
  readonly offset: number | null;
}

const COLUMN = 16;

/** `downfold map`: which layer each part of the virtual disk comes from; streamed, never collected. */
export async function map(file: string, options: MapOptions): Promise<number> {
  await using chain = await openChain(
    absolute(file),
    options.format,
    environmentFor(file, options),
  );
  const range = rangeOf(chain, options);
  if (options.output === 'json') await mapJson(chain, range);
  else await mapHuman(chain, range, namesOf(chain, file));
  return 0;
}

/** The part of the disk that is asked for. */
function rangeOf({ layers }: OpenChain, { startOffset, maxLength }: MapOptions): GuestRange {
  const size = layers.at(-1)?.image.geometry.virtualSize ?? 0;
  const start = startOffset === undefined ? 0 : parseBytes(startOffset, 'start offset');
  const length = maxLength === undefined ? size : parseBytes(maxLength, 'length');
  return rangeBetween(guestOffset(start), Math.min(size, start + length));
}

async function mapJson(chain: OpenChain, range: GuestRange): Promise<void> {
  let before = '[';
  for await (const runs of runsOf(chain, range)) {
    let text = '';
    for (const run of runs) {
      const offset = run.offset === null ? '' : `, "offset": ${run.offset}`;
      text += `${before}{ "start": ${run.start}, "length": ${run.length}, "depth": ${run.depth}, "present": ${run.present}, "zero": ${run.zero}, "data": ${run.data}${offset}}`;
      before = ',\n';
    }
    await printPart(text);
  }
  await printPart(before === '[' ? '[]\n' : ']\n');
}

async function mapHuman(
  chain: OpenChain,
  range: GuestRange,
  names: readonly string[],
): Promise<void> {
  const row = (cells: readonly (string | undefined)[], name: string | undefined): string =>
    `${cells.map((cell = '') => cell.padEnd(COLUMN)).join('')}${name}\n`;
  await printPart(row(['Offset', 'Length', 'Mapped to'], 'File'));
  const top = chain.layers.length - 1;
  for await (const runs of runsOf(chain, range)) {
    let text = '';
    for (const run of runs.filter(({ data }) => data)) {
      const name = names[top - run.depth];
      if (run.offset === null) {
        await printPart(text);
        throw new ImageError(
          'IMAGE_UNSUPPORTED',
          `${name}: has compressed clusters at ${run.start}, which have no place to show; use --output json`,
          { image: name ?? '', offset: run.start },
        );
      }
      text += row([run.start, run.length, run.offset].map(hex), name);
    }
    await printPart(text);
  }
}

function hex(value: number): string {
  return value === 0 ? '0' : `0x${value.toString(16)}`;
}

/** The runs in batches; neighbours that continue one another are one, across batches too. */
async function* runsOf(
  { layers }: OpenChain,
  range: GuestRange,
): AsyncGenerator<readonly Run[], void, undefined> {
  const top = layers.length - 1;
  let last: Run | null = null;
  for await (const extents of subchainExtents(layers, { base: -1, top }, range)) {
    const done: Run[] = [];
    for (const run of extents.flatMap((extent) => runsIn(extent, layers))) {
      if (last !== null && continues(last, run)) last.length += run.length;
      else {
        if (last !== null) done.push(last);
        last = run;
      }
    }
    if (done.length > 0) yield done;
  }
  if (last !== null) yield [last];
}

/** An extent, in two where the layer that decides it ends within: past its end it is zero as well, and to qemu-img another run. */
function runsIn(extent: OwnedExtent, layers: OpenChain['layers']): readonly Run[] {
  const end = layers[extent.owner ?? 0]?.image.geometry.virtualSize ?? 0;
  if (extent.offset >= end || rangeEnd(extent) <= end) return [runOf(extent, layers)];
  const inside = byteLength(end - extent.offset);
  const past = {
    offset: advance(extent.offset, inside),
    length: byteLength(rangeEnd(extent) - end),
  };
  return [
    { ...extent, length: inside },
    { ...extent, ...past },
  ].map((part) => runOf(part, layers));
}

/** A zero past the end of a short layer is, to qemu-img, one that the layer above it leaves unallocated. */
function runOf(extent: OwnedExtent, layers: OpenChain['layers']): Run {
  const owner = extent.owner ?? 0;
  const pastEnd = extent.offset >= (layers[owner]?.image.geometry.virtualSize ?? 0);
  const zero = extent.status === 'zero' || extent.status === 'unallocated';
  return {
    start: extent.offset,
    length: extent.length,
    depth: layers.length - 1 - (pastEnd ? owner + 1 : owner),
    present: extent.status !== 'unallocated' && !pastEnd,
    zero,
    data: !zero,
    offset: extent.status === 'data' ? extent.host : null,
  };
}

function continues(last: Run, next: Run): boolean {
  if (last.depth !== next.depth || last.zero !== next.zero || last.present !== next.present)
    return false;
  return last.offset === null ? next.offset === null : next.offset === last.offset + last.length;
}
