import { protocolError } from '../errors.ts';
import { type BlockSize, INFO } from '../protocol.ts';
import { decodeString, encodeString } from './strings.ts';
import { readU64, writeU64 } from './words.ts';

/** What `OPTION.info` and `OPTION.go` ask for: an export and items of `INFO`. */
export interface InfoQuery {
  readonly name: string;
  readonly infos: readonly number[];
}

/** What `OPTION.listMetaContext` and `OPTION.setMetaContext` ask for. */
export interface ContextQuery {
  readonly name: string;
  readonly queries: readonly string[];
}

/** Size in bytes and bits of `EXPORT_FLAG` of an export. */
export interface ExportFacts {
  readonly size: number;
  readonly flags: number;
}

/** Walks the data of an option or a reply; every step checks what is left. */
class Cursor {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get left(): number {
    return this.#bytes.length - this.#at;
  }

  u16(): number {
    return this.take(2).readUInt16BE(0);
  }

  u32(): number {
    return this.take(4).readUInt32BE(0);
  }

  /** A string after its length in 32 bits. */
  string(what: string): string {
    return decodeString(this.take(this.u32()), what);
  }

  take(count: number): Buffer {
    if (count > this.left) throw protocolError('an option or its reply ends too early');
    this.#at += count;
    return this.#bytes.subarray(this.#at - count, this.#at);
  }

  end(): void {
    if (this.left > 0) throw protocolError('an option or its reply has bytes too many');
  }
}

function u16(value: number): Buffer {
  const bytes = Buffer.allocUnsafe(2);
  bytes.writeUInt16BE(value);
  return bytes;
}

function u32(value: number): Buffer {
  const bytes = Buffer.allocUnsafe(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

function counted(text: string, what: string): Buffer {
  const bytes = encodeString(text, what);
  return Buffer.concat([u32(bytes.length), bytes]);
}

/** Data of `OPTION.info` and `OPTION.go`. */
export function encodeInfoQuery(query: InfoQuery): Buffer {
  return Buffer.concat([
    counted(query.name, 'the name of the export'),
    u16(query.infos.length),
    ...query.infos.map(u16),
  ]);
}

/** @throws NbdError `NBD_PROTOCOL`, `NBD_LIMIT` */
export function decodeInfoQuery(data: Buffer): InfoQuery {
  const cursor = new Cursor(data);
  const name = cursor.string('the name of the export');
  const infos = Array.from({ length: cursor.u16() }, () => cursor.u16());
  cursor.end();
  return { name, infos };
}

/** Data of `OPTION.listMetaContext` and `OPTION.setMetaContext`. */
export function encodeContextQuery(query: ContextQuery): Buffer {
  return Buffer.concat([
    counted(query.name, 'the name of the export'),
    u32(query.queries.length),
    ...query.queries.map((text) => counted(text, 'a query for a context')),
  ]);
}

/** @throws NbdError `NBD_PROTOCOL`, `NBD_LIMIT` */
export function decodeContextQuery(data: Buffer): ContextQuery {
  const cursor = new Cursor(data);
  const name = cursor.string('the name of the export');
  const count = cursor.u32();
  const queries: string[] = [];
  // a count that lies ends with the data, not with the memory
  while (queries.length < count) queries.push(cursor.string('a query for a context'));
  cursor.end();
  return { name, queries };
}

/** Data of `OPTION_REPLY.server`: one line of the list of exports. */
export function encodeServerEntry(name: string, description: string): Buffer {
  return Buffer.concat([
    counted(name, 'the name of the export'),
    encodeString(description, 'the description of the export'),
  ]);
}

/** @throws NbdError `NBD_PROTOCOL`, `NBD_LIMIT` */
export function decodeServerEntry(data: Buffer): { name: string; description: string } {
  const cursor = new Cursor(data);
  const name = cursor.string('the name of the export');
  return { name, description: decodeString(cursor.take(cursor.left), 'the description') };
}

/** Data of `OPTION_REPLY.metaContext`. @param id 0 to 2^32-1, names the context in statuses */
export function encodeMetaContext(id: number, name: string): Buffer {
  return Buffer.concat([u32(id), encodeString(name, 'the name of a context')]);
}

/** @throws NbdError `NBD_PROTOCOL`, `NBD_LIMIT` */
export function decodeMetaContext(data: Buffer): { id: number; name: string } {
  const cursor = new Cursor(data);
  return { id: cursor.u32(), name: decodeString(cursor.take(cursor.left), 'a context') };
}

/** Data of `OPTION_REPLY.info` with `INFO.export`. */
export function encodeInfoExport(facts: ExportFacts): Buffer {
  const bytes = Buffer.allocUnsafe(12);
  bytes.writeUInt16BE(INFO.export, 0);
  writeU64(bytes, 2, facts.size);
  bytes.writeUInt16BE(facts.flags, 10);
  return bytes;
}

/** Data of `OPTION_REPLY.info` with `INFO.name` or `INFO.description`. */
export function encodeInfoText(info: number, text: string): Buffer {
  return Buffer.concat([u16(info), encodeString(text, 'a text about the export')]);
}

/** Data of `OPTION_REPLY.info` with `INFO.blockSize`. */
export function encodeInfoBlockSize(size: BlockSize): Buffer {
  return Buffer.concat([
    u16(INFO.blockSize),
    u32(size.minimum),
    u32(size.preferred),
    u32(size.maximumPayload),
  ]);
}

/** One item about an export; `other` is what this package does not know and a client passes over. */
export type Info =
  | ({ readonly info: 'export' } & ExportFacts)
  | ({ readonly info: 'blockSize' } & BlockSize)
  | { readonly info: 'name' | 'description'; readonly text: string }
  | { readonly info: 'other' };

/** Data of `OPTION_REPLY.info`. @throws NbdError `NBD_PROTOCOL`, `NBD_LIMIT` */
export function decodeInfo(data: Buffer): Info {
  const cursor = new Cursor(data);
  const type = cursor.u16();
  if (type === INFO.export) {
    const facts = decodeExportFacts(cursor.take(10));
    cursor.end();
    return { info: 'export', ...facts };
  }
  if (type === INFO.blockSize) {
    const [minimum, preferred, maximumPayload] = [cursor.u32(), cursor.u32(), cursor.u32()];
    cursor.end();
    return { info: 'blockSize', minimum, preferred, maximumPayload };
  }
  if (type !== INFO.name && type !== INFO.description) return { info: 'other' };
  const text = decodeString(cursor.take(cursor.left), 'a text about the export');
  return { info: type === INFO.name ? 'name' : 'description', text };
}

/** Bytes of the reply to `OPTION.exportName`, without and with its 124 zeros. */
export const EXPORT_NAME_REPLY_BYTES = { short: 10, padded: 134 } as const;

/** The reply to `OPTION.exportName`. @param padded with 124 zeros, as without `HANDSHAKE_FLAG.noZeroes` */
export function encodeExportNameReply(facts: ExportFacts, padded: boolean): Buffer {
  const bytes = Buffer.alloc(EXPORT_NAME_REPLY_BYTES[padded ? 'padded' : 'short']);
  writeU64(bytes, 0, facts.size);
  bytes.writeUInt16BE(facts.flags, 8);
  return bytes;
}

/** Size and flags from the first 10 bytes. @throws NbdError `NBD_PROTOCOL` above 2^53-1 bytes */
export function decodeExportFacts(bytes: Buffer): ExportFacts {
  const size = readU64(bytes, 0);
  if (size === Number.POSITIVE_INFINITY) throw protocolError('the export is larger than 8 PiB');
  return { size, flags: bytes.readUInt16BE(8) };
}
