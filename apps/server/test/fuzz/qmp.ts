import { hostileJson, mangle, type Random } from '@downfold/compliance';

/** Commands of this server, whole: those that would change something are about what is not there. */
const COMMANDS: readonly (readonly [name: string, args: object])[] = [
  ['query-jobs', {}],
  ['query-block-jobs', {}],
  ['query-block-exports', {}],
  ['query-named-block-nodes', { flat: true }],
  ['query-version', {}],
  ['query-commands', {}],
  ['qmp_capabilities', { enable: [] }],
  ['block-commit', { device: 'nosuch', 'job-id': 'j', base: 'b', top: 't', speed: 1 }],
  ['block-stream', { device: 'nosuch', 'job-id': 'j', 'on-error': 'report' }],
  ['blockdev-add', { driver: 'file', 'node-name': 'n', filename: 'nosuch' }],
  ['blockdev-add', { driver: 'qcow2', 'node-name': 'n', file: { driver: 'file', filename: 'no' } }],
  ['blockdev-del', { 'node-name': 'nosuch' }],
  ['blockdev-reopen', { options: [{ driver: 'file', 'node-name': 'nosuch', filename: 'no' }] }],
  ['blockdev-snapshot', { node: 'nosuch', overlay: 'neither' }],
  ['blockdev-snapshot-sync', { 'node-name': 'nosuch', 'snapshot-file': 'f', format: 'qcow2' }],
  ['change-backing-file', { device: 'nosuch', 'image-node-name': 'no', 'backing-file': 'f' }],
  ['block-export-add', { type: 'nbd', id: 'e', 'node-name': 'nosuch', writable: true }],
  ['block-export-del', { id: 'nosuch', mode: 'hard' }],
  ['nbd-server-start', { addr: { type: 'unix', data: { path: 'run/nosuch' } } }],
  ['job-cancel', { id: 'nosuch' }],
  ['block-job-set-speed', { device: 'nosuch', speed: 7 }],
];

const ODD_TEXT = ['', '\0', '\n', '\ud800', '../../etc', '%s%n', '{}', 'é'.repeat(9000)];
const ODD_NUMBERS = [-1, 0.5, 2 ** 31, 2 ** 53, -(2 ** 63), 1e308];

/** Bytes of one session: lines that are wrong in their structure, in their JSON, or in their bytes. */
export function session(random: Random): readonly Buffer[] {
  const lines: Buffer[] = [];
  if (random.next(8) > 0) lines.push(lineOf({ execute: 'qmp_capabilities' }));
  for (let count = 1 + random.next(5); count > 0; count--)
    lines.push(
      random.next(5) === 0
        ? Buffer.concat([hostileJson((below) => random.next(below)), Buffer.from('\n')])
        : lineOf(wrong(random, command(random))),
    );
  return random.next(2) === 0 ? lines : mangle(random, lines);
}

function lineOf(value: unknown): Buffer {
  return Buffer.from(`${JSON.stringify(value)}\n`);
}

function command(random: Random): object {
  const [execute, args] = random.pick(COMMANDS);
  return { execute, arguments: args, id: random.next(9) };
}

/** The same with one thing wrong, somewhere in it. */
function wrong(random: Random, value: unknown): unknown {
  if (typeof value !== 'object' || value === null || random.next(6) === 0) return odd(random);
  if (Array.isArray(value)) return value.length === 0 ? [odd(random)] : value.with(0, odd(random));
  const entries = Object.entries(value);
  if (entries.length === 0) return { x: odd(random) };
  const at = random.next(entries.length + 1);
  const [name, inner] = entries[at] ?? ['', null];
  switch (random.next(4)) {
    case 0:
      return Object.fromEntries(entries.toSpliced(at, 1));
    case 1:
      return Object.fromEntries([
        ...entries,
        [random.pick(['x', 'id', '__proto__', '']), odd(random)],
      ]);
    case 2:
      return Object.fromEntries(
        entries.with(Math.min(at, entries.length - 1), [`${name}x`, inner]),
      );
    default:
      return { ...value, [name]: wrong(random, inner) };
  }
}

function odd(random: Random): unknown {
  const deep = (levels: number): unknown => (levels === 0 ? 1 : [deep(levels - 1)]);
  return random.pick([
    () => random.pick(ODD_TEXT),
    () => random.pick(ODD_NUMBERS),
    () => random.pick([null, true, false]),
    () => deep(random.pick([1, 31, 33, 2000])),
    () => Array.from({ length: random.next(2000) }, () => 0),
    () => ({ a: { b: { c: random.pick(ODD_TEXT) } } }),
  ])();
}

/** What a server may not say: anything but whole lines of QMP, or that it failed itself. Null: nothing of that. */
export function badAnswer(heard: Buffer): string | null {
  const text = heard.toString('latin1');
  if (text !== '' && !text.endsWith('\r\n')) return `half a line: ${text.slice(-200)}`;
  for (const line of text.split('\r\n').slice(0, -1)) {
    const said = JSON.parse(line) as Readonly<Record<string, unknown>>;
    if (!['QMP', 'return', 'error', 'event'].some((member) => Object.hasOwn(said, member)))
      return `no QMP: ${line}`;
    if (line.includes('Internal error')) return line;
  }
  return null;
}
