import { type OpenChain, openChain } from '@downfold/chain';
import { ImageError } from '@downfold/image';
import { type GuestRange, guestOffset, rangeBetween } from '@downfold/units';
import { type Access, environmentFor } from '../environment.ts';
import { emptyRow, type MapRow, type MapSink, mapRows } from '../map-rows.ts';
import { ByteText, digitsOf } from '../output/byte-text.ts';
import { parseBytes } from '../output/bytes.ts';
import { printPart } from '../output/print.ts';
import { absolute, besides, namesOf } from '../paths.ts';

/** Options of `map`. */
export interface MapOptions extends Access {
  readonly format: string;
  readonly output: string;
  readonly startOffset?: string;
  readonly maxLength?: string;
}

const COLUMN = 16;

/** `downfold map`: which layer each part of the virtual disk comes from; streamed, never collected. */
export async function map(file: string, options: MapOptions): Promise<number> {
  await using chain = await openChain(
    absolute(file),
    options.format,
    environmentFor(file, { allowLocked: true, ...options }),
  );
  const range = rangeOf(chain, options);
  if (options.output === 'json') {
    const rows = new JsonRows();
    await mapRows(chain, range, rows);
    await rows.end(range.offset);
  } else await mapRows(chain, range, new HumanRows(await dataNames(chain, file)));
  return 0;
}

/** The part of the disk that is asked for. */
function rangeOf({ layers }: OpenChain, { startOffset, maxLength }: MapOptions): GuestRange {
  const size = layers.at(-1)?.image.geometry.virtualSize ?? 0;
  const start = startOffset === undefined ? 0 : parseBytes(startOffset, 'start offset');
  const length = maxLength === undefined ? size : parseBytes(maxLength, 'length');
  return rangeBetween(guestOffset(start), Math.min(size, start + length));
}

const ascii = (text: string): Uint8Array => Buffer.from(text, 'latin1');
const FIRST = ascii('[');
const NEXT = ascii(',\n');

/** Above what a row is long. */
const ROW_BYTES = 256;

/** A row with zeros for digits, and how many bytes stand behind each number. */
interface Template {
  readonly bytes: Uint8Array;
  readonly afterStart: number;
  readonly afterLength: number;
}

/** Rows as qemu-img prints them in JSON. Millions have few shapes: all but the digits is taken from the one that a shape had first. */
class JsonRows implements MapSink {
  readonly #text = new ByteText();
  readonly #templates: Map<number, Template> = new Map();
  #empty = true;

  add(row: Readonly<MapRow>): void {
    const text = this.#text;
    const { bytes, afterStart, afterLength } = this.#templateOf(row);
    text.reserve(ROW_BYTES);
    text.text(this.#empty ? FIRST : NEXT);
    this.#empty = false;
    text.text(bytes);
    text.number(row.start, afterStart);
    text.number(row.length, afterLength);
    if (row.offset >= 0) text.number(row.offset, 1);
  }

  #templateOf(row: Readonly<MapRow>): Template {
    const { start, length, depth, present, zero, data, offset } = row;
    let shape = (depth * 8 + (present ? 1 : 0) + (zero ? 2 : 0) + (data ? 4 : 0)) * 32;
    shape = (shape + digitsOf(start)) * 32 + digitsOf(length);
    shape = shape * 32 + (offset < 0 ? 0 : digitsOf(offset));
    const known = this.#templates.get(shape);
    if (known !== undefined) return known;
    const made = templateOf(row);
    this.#templates.set(shape, made);
    return made;
  }

  async flush(): Promise<void> {
    await this.#text.printIfFull();
  }

  /** Of an empty range one row of no bytes is told, at its start. */
  async end(start: number): Promise<void> {
    if (this.#empty) this.add(emptyRow(start));
    this.#text.reserve(ROW_BYTES);
    this.#text.text(ascii(']\n'));
    await this.#text.print();
  }
}

function templateOf(row: Readonly<MapRow>): Template {
  const { start, length, depth, present, zero, data, offset } = row;
  const zeros = (value: number): string => '0'.repeat(digitsOf(value));
  const head = `{ "start": ${zeros(start)}`;
  const middle = `${head}, "length": ${zeros(length)}`;
  const flags = `"present": ${present}, "zero": ${zero}, "data": ${data}`;
  const place = offset < 0 ? '' : `, "offset": ${zeros(offset)}`;
  const bytes = ascii(`${middle}, "depth": ${depth}, ${flags}${place}}`);
  return {
    bytes,
    afterStart: bytes.length - head.length,
    afterLength: bytes.length - middle.length,
  };
}

/** How the file is to be called that holds the data of each layer, bottom first. */
async function dataNames(chain: OpenChain, file: string): Promise<readonly string[]> {
  const names = [...namesOf(chain, file)];
  for (const [index, { facts, image }] of chain.layers.entries()) {
    if (facts.dataFile === undefined) continue;
    const { specific } = await image.describe();
    names[index] = besides(names[index] ?? file, String(specific['data-file']));
  }
  return names;
}

/** Rows of data as qemu-img prints them for people. */
class HumanRows implements MapSink {
  readonly #names: readonly string[];
  #text = rowOf(['Offset', 'Length', 'Mapped to'], 'File');
  #misplaced: { readonly name: string; readonly start: number } | null = null;

  /** @param names of the files that hold the data, bottom first */
  constructor(names: readonly string[]) {
    this.#names = names;
  }

  add({ start, length, depth, zero, offset }: Readonly<MapRow>): void {
    if (zero || this.#misplaced !== null) return;
    const name = this.#names[this.#names.length - 1 - depth] ?? '';
    if (offset < 0) this.#misplaced = { name, start };
    else this.#text += rowOf([start, length, offset].map(hex), name);
  }

  async flush(): Promise<void> {
    await printPart(this.#text);
    this.#text = '';
    if (this.#misplaced === null) return;
    const { name, start } = this.#misplaced;
    throw new ImageError(
      'IMAGE_UNSUPPORTED',
      `${name}: has compressed or encrypted clusters at ${start}, which have no place to show; use --output json`,
      { image: name, offset: start },
    );
  }
}

function rowOf(cells: readonly string[], name: string): string {
  return `${cells.map((cell) => cell.padEnd(COLUMN)).join('')}${name}\n`;
}

function hex(value: number): string {
  return value === 0 ? '0' : `0x${value.toString(16)}`;
}
