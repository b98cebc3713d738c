import type { Random } from '@downfold/compliance';
import {
  COMMAND,
  COMMAND_FLAG,
  encodeClientFlags,
  encodeContextQuery,
  encodeInfoQuery,
  encodeOption,
  encodeRequestHeader,
  OPTION,
} from '@downfold/nbd';

const STYLES = [null, OPTION.structuredReply, OPTION.extendedHeaders] as const;
const QUERIES = ['base:allocation', 'qemu:allocation-depth', 'base:', 'qemu:', 'x:y', ''];

/** What a client says that means something, more or less, message by message: the handshake, then requests at the edges of what is allowed. */
export function conversation(
  random: Random,
  names: readonly string[],
  size: number,
): readonly Buffer[] {
  const style = random.pick(STYLES);
  const name = random.pick(names);
  const said = [encodeClientFlags(random.next(8) === 0 ? 1 : 3)];
  if (style !== null) said.push(encodeOption(style));
  for (let more = random.next(3); more > 0; more--) said.push(detour(random, name));
  const query = { name, queries: [random.pick(QUERIES), random.pick(QUERIES)] };
  said.push(encodeOption(OPTION.setMetaContext, encodeContextQuery(query)));
  if (random.next(6) === 0) said.push(encodeOption(OPTION.exportName, Buffer.from(name)));
  else said.push(encodeOption(OPTION.go, encodeInfoQuery({ name, infos: [0, 1, 2, 3] })));
  for (let cookie = 1 + random.next(8); cookie > 0; cookie--)
    said.push(...request(random, cookie, size, style === OPTION.extendedHeaders));
  return said;
}

/** An option that leads nowhere. */
function detour(random: Random, name: string): Buffer {
  const query = { name, queries: [random.pick(QUERIES)] };
  return random.pick([
    () => encodeOption(OPTION.list),
    () => encodeOption(OPTION.info, encodeInfoQuery({ name, infos: [random.next(9)] })),
    () => encodeOption(OPTION.listMetaContext, encodeContextQuery(query)),
    () => encodeOption(OPTION.startTls),
    () => encodeOption(random.next(2 ** 31), random.bytes(random.next(40))),
  ])();
}

function request(
  random: Random,
  cookie: number,
  size: number,
  extended: boolean,
): readonly Buffer[] {
  const command = random.next(20) === 0 ? random.next(65_536) : random.next(8);
  const usual = random.next(4) > 0;
  const length = usual ? random.next(9000) : random.pick([0, 1, size, size + 1, 2 ** 32 - 1]);
  const offset = usual ? random.next(size - 9000) : random.pick([0, size - 1, size, 2 ** 52]);
  const carries = command === COMMAND.write;
  const flags =
    (random.next(3) === 0 ? 1 << random.next(7) : 0) |
    (carries && extended ? COMMAND_FLAG.payloadLength : 0);
  const header = encodeRequestHeader(
    { command, flags, cookie, offset, length: carries ? Math.min(length, 9000) : length },
    extended,
  );
  return carries ? [header, random.bytes(Math.min(length, 9000))] : [header];
}

/** Bytes that a request may have changed: to those of `bytes`, or to zero. */
export interface MayWrite {
  readonly offset: number;
  readonly length: number;
  readonly bytes: Uint8Array | null;
}

const OPTION_WORDS = Buffer.from('IHAVEOPT');

/**
 * Every change that somebody could read out of a client's bytes, be it that an option was refused, headers of this kind were not agreed on, or flags and
 * ranges not allowed: what changed and is none of them, no client asked for. Written without the code under test. Source: proto.md.
 */
export function mayWrite(stream: Buffer, size: number): readonly MayWrite[] {
  const found: MayWrite[] = [];
  for (let at = 4; at + 16 <= stream.length; ) {
    if (stream.subarray(at, at + 8).equals(OPTION_WORDS)) {
      at += 16 + stream.readUInt32BE(at + 12);
      continue;
    }
    const magic = stream.readUInt32BE(at);
    const extended = magic === 0x21e41c71;
    const header = extended ? 32 : 28;
    if ((magic !== 0x25609513 && !extended) || at + header > stream.length) break;
    const [flags, command] = [stream.readUInt16BE(at + 4), stream.readUInt16BE(at + 6)];
    const offset = Number(stream.readBigUInt64BE(at + 16));
    const length = extended
      ? Number(stream.readBigUInt64BE(at + 24))
      : stream.readUInt32BE(at + 24);
    const carries = extended ? (flags & 32) !== 0 : command === 1;
    at += header;
    const bytes = stream.subarray(at, at + length);
    if (carries) at += length;
    if (offset + length > size || (carries && at > stream.length)) continue;
    if (command === 1) found.push({ offset, length, bytes });
    if (command === 4 || command === 6) found.push({ offset, length, bytes: null });
  }
  return found;
}

/** The first byte of a disk that changed from `before` to `after` without a reason. Null: there is none. */
export function unasked(
  before: Buffer,
  after: Buffer,
  reasons: readonly MayWrite[],
): number | null {
  const known = new Uint8Array(after.length);
  for (const { offset, length, bytes } of reasons)
    for (let at = 0; at < length; at++)
      if (after[offset + at] === (bytes?.[at] ?? 0)) known[offset + at] = 1;
  for (let at = 0; at < after.length; at++)
    if (after[at] !== before[at] && known[at] === 0) return at;
  return null;
}
