import { basename } from 'node:path';
import type { LogEntry, MemoryDisk } from '@downfold/storage-memory';
import { fileOf, IMAGES, pathOf } from './chain.ts';

/** Every system call that changes a file or its name, or makes it durable. What is not understood must be seen. */
const CALLS = [
  'write,writev,pwrite64,pwritev,pwritev2,fallocate,ftruncate,truncate,copy_file_range,sendfile',
  'fdatasync,fsync,sync_file_range,syncfs,sync,msync',
  'rename,renameat,renameat2,unlink,unlinkat,link,linkat',
  'io_submit,io_uring_setup',
].join(',');

/** What to put before a command so that its calls on files below `directory` are written to `output`. */
export function tracer(directory: string, output: string): readonly string[] {
  const paths = IMAGES.flatMap((name) => ['-P', `${directory}/${fileOf(name)}`]);
  const bytes = ['-y', '-xx', '-s', String(64 << 20)];
  return [
    'strace',
    '-f',
    '-qqq',
    '-o',
    output,
    '-e',
    `trace=${CALLS}`,
    '-e',
    'signal=none',
    ...paths,
    ...bytes,
  ];
}

/** One system call as strace shows it, and after how many others had ended it was called. */
interface Call {
  readonly name: string;
  readonly arguments: string;
  readonly result: number;
  readonly calledAfter: number;
}

/**
 * The log of a recording from what strace wrote: changes in the order in which they ended, flushes with what they cover:
 * the changes that had ended when they were called.
 * @throws Error on a call that has no place in the fault model, so that nothing is left out silently
 */
export function logOf(trace: string, disk: MemoryDisk): readonly LogEntry[] {
  const log: LogEntry[] = [];
  const lengths = new Map<number, number>();
  for (const call of callsOf(trace, () => log.length)) {
    if (call.result < 0) throw new Error(`failed: ${show(call)}`);
    const inode = inodeOf(call, disk);
    const length = lengths.get(inode) ?? disk.fileOf(inode).length;
    const entry = entryOf(call, inode, length);
    if (entry === null) continue;
    log.push(entry);
    if (entry.kind === 'file' && entry.do !== 'discard') lengths.set(inode, endOf(entry, length));
  }
  return log;
}

function* callsOf(trace: string, ended: () => number): Generator<Call, void, undefined> {
  const open = new Map<string, { readonly text: string; readonly calledAfter: number }>();
  for (const line of trace.split('\n')) {
    const [, thread = '', text = ''] = /^(\d+) +(.*)$/.exec(line) ?? [];
    const begun = /^(.*) <unfinished \.\.\.>$/.exec(text)?.[1];
    if (begun !== undefined) {
      open.set(thread, { text: begun, calledAfter: ended() });
      continue;
    }
    const resumed = /^<\.\.\. \w+ resumed>(.*)$/.exec(text)?.[1];
    const begin = open.get(thread);
    const whole = resumed === undefined ? text : `${begin?.text}${resumed}`;
    open.delete(thread);
    // a call that never returned (the process was killed) changed nothing that is known
    const parts = /^(\w+)\((.*)\) += (-?\d+)/.exec(whole);
    if (parts === null) continue;
    const [, name = '', args = '', result = ''] = parts;
    const calledAfter = resumed === undefined ? ended() : (begin?.calledAfter ?? 0);
    yield { name, arguments: args, result: Number(result), calledAfter };
  }
}

function inodeOf(call: Call, disk: MemoryDisk): number {
  const path = /^\d+<((?:\\x[0-9a-f]{2})+)>/.exec(call.arguments)?.[1];
  const name = IMAGES.find((one) => path !== undefined && basename(textOf(path)) === fileOf(one));
  if (name === undefined) throw new Error(`not on a file of the chain: ${show(call)}`);
  return disk.inodeOf(pathOf(name));
}

/** Null: a call that changes nothing. */
function entryOf(call: Call, inode: number, length: number): LogEntry | null {
  const { name, result, calledAfter } = call;
  const last = Number(call.arguments.slice(call.arguments.lastIndexOf(' ') + 1));
  const what = name;
  switch (name) {
    case 'pwrite64':
      return { kind: 'file', inode, what, do: 'write', offset: last, bytes: dataOf(call) };
    case 'pwritev':
      return { kind: 'file', inode, what, do: 'write', offset: last, bytes: dataOf(call) };
    case 'ftruncate':
      return { kind: 'file', inode, what, do: 'length', length: last };
    case 'fallocate':
      return allocated(call, inode, length);
    case 'fdatasync':
    case 'fsync':
      return { kind: 'flush', inode, barrier: name, covers: calledAfter };
    default:
      throw new Error(`no place in the fault model (result ${result}): ${show(call)}`);
  }
}

function allocated(call: Call, inode: number, length: number): LogEntry | null {
  const [, mode = '', ...sizes] = call.arguments.split(', ');
  const [offset = Number.NaN, bytes = Number.NaN] = sizes.map(Number);
  const change = { kind: 'file', inode, what: `fallocate ${mode}` } as const;
  const keeps = mode.includes('FALLOC_FL_KEEP_SIZE');
  if (mode.includes('FALLOC_FL_PUNCH_HOLE'))
    return { ...change, do: 'discard', offset, length: bytes };
  if (mode.includes('FALLOC_FL_ZERO_RANGE'))
    return { ...change, do: keeps ? 'discard' : 'zero', offset, length: bytes };
  if (mode !== '0' && mode !== 'FALLOC_FL_KEEP_SIZE')
    throw new Error(`no place in the fault model: ${show(call)}`);
  if (keeps || offset + bytes <= length) return null;
  return { ...change, do: 'length', length: offset + bytes };
}

/** What was really written, of one buffer or several. */
function dataOf(call: Call): Uint8Array {
  const parts = [...call.arguments.matchAll(/"((?:\\x[0-9a-f]{2})*)"/g)].map(([, text = '']) =>
    Buffer.from(text.replaceAll('\\x', ''), 'hex'),
  );
  const bytes = Buffer.concat(parts);
  if (bytes.length < call.result || call.arguments.includes('...'))
    throw new Error(`strace cut off what was written: ${show(call)}`);
  return bytes.subarray(0, call.result);
}

function endOf(entry: LogEntry, length: number): number {
  if (entry.kind !== 'file') return length;
  if (entry.do === 'length') return entry.length;
  const bytes = entry.do === 'write' ? entry.bytes.length : entry.length;
  return Math.max(length, entry.offset + bytes);
}

function textOf(hex: string): string {
  return Buffer.from(hex.replaceAll('\\x', ''), 'hex').toString();
}

function show({ name, arguments: args, result }: Call): string {
  return `${name}(${args.slice(0, 200)}) = ${result}`;
}
