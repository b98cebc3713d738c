import { type OpenChain, openChain } from '@downfold/chain';
import { ImageError } from '@downfold/image';
import { type GuestRange, guestOffset, rangeBetween } from '@downfold/units';
import { type Access, environmentFor } from '../environment.ts';
import { type MapRow, type MapSink, mapRows } from '../map-rows.ts';
import { ByteText } from '../output/byte-text.ts';
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
    await rows.end();
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
const FIRST = ascii('[{ "start": ');
const NEXT = ascii(',\n{ "start": ');
const LENGTH = ascii(', "length": ');
const DEPTH = ascii(', "depth": ');
const OFFSET = ascii(', "offset": ');
const END = ascii('}');
/** What is said between depth and offset, by whether a row is present (1), zero (2) and data (4). */
const FLAGS = [0, 1, 2, 3, 4, 5, 6, 7].map((flags) => {
  const has = (flag: number): boolean => (flags & flag) !== 0;
  return ascii(`, "present": ${has(1)}, "zero": ${has(2)}, "data": ${has(4)}`);
});

/** Above what a row is long. */
const ROW_BYTES = 256;

/** Rows as qemu-img prints them in JSON. */
class JsonRows implements MapSink {
  readonly #text = new ByteText();
  #empty = true;

  add({ start, length, depth, present, zero, data, offset }: Readonly<MapRow>): void {
    const text = this.#text;
    text.reserve(ROW_BYTES);
    text.text(this.#empty ? FIRST : NEXT);
    this.#empty = false;
    text.number(start);
    text.text(LENGTH);
    text.number(length);
    text.text(DEPTH);
    text.number(depth);
    text.text(FLAGS[(present ? 1 : 0) + (zero ? 2 : 0) + (data ? 4 : 0)] as Uint8Array);
    if (offset >= 0) {
      text.text(OFFSET);
      text.number(offset);
    }
    text.text(END);
  }

  async flush(): Promise<void> {
    await this.#text.printIfFull();
  }

  async end(): Promise<void> {
    this.#text.reserve(ROW_BYTES);
    this.#text.text(ascii(this.#empty ? '[]\n' : ']\n'));
    await this.#text.print();
  }
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
