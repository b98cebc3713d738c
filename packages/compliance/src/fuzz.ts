import { connect } from 'node:net';
import { seededRandom } from './random.ts';

/** Numbers from a seed: the same seed, the same numbers. */
export class Random {
  readonly #random: () => number;

  constructor(seed: number) {
    this.#random = seededRandom(seed);
  }

  /** A whole number from 0 to `below - 1`. */
  next(below: number): number {
    return Math.floor(this.#random() * below);
  }

  pick<T>(from: readonly T[]): T {
    return from[this.next(from.length)] as T;
  }

  bytes(length: number): Buffer {
    const bytes = Buffer.alloc(length);
    for (let i = 0; i < length; i++) bytes[i] = this.next(256);
    return bytes;
  }
}

/** Values that break arithmetic. */
const EXTREMES = [
  0, 1, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 0xffff, 4097, 0x0200_0001, 0x00ff_ffff,
];

/** One to four things wrong with a list of messages: a bit, a word, a length, a piece too few or too many, the order. */
export function mangle(random: Random, messages: readonly Buffer[]): Buffer[] {
  const all = messages.map((message) => Buffer.from(message));
  for (let times = 1 + random.next(4); times > 0 && all.length > 0; times--) {
    const index = random.next(all.length);
    const message = all[index] ?? Buffer.alloc(0);
    const at = random.next(message.length + 1);
    const kinds: (() => void)[] = [
      () => {
        if (at < message.length) message[at] = (message[at] ?? 0) ^ (1 << random.next(8));
      },
      () => {
        const word = at - (at % 4);
        if (word + 4 <= message.length) message.writeUInt32BE(random.pick(EXTREMES), word);
      },
      () => {
        if (at + 2 <= message.length) message.writeUInt16BE(random.next(0x1_0000), at);
      },
      () => {
        all[index] = message.subarray(0, at);
      },
      () => {
        const garbage = random.bytes(1 + random.next(60));
        all[index] = Buffer.concat([message.subarray(0, at), garbage, message.subarray(at)]);
      },
      () => {
        all.splice(index, 1);
      },
      () => {
        all.splice(index, 0, Buffer.from(message));
      },
      () => {
        all.splice(random.next(all.length), 0, ...all.splice(index, 1));
      },
    ];
    random.pick(kinds)();
  }
  return all;
}

/** The same bytes, cut anywhere. */
export function recut(random: Random, messages: readonly Buffer[]): Buffer[] {
  const stream = Buffer.concat(messages);
  const pieces: Buffer[] = [];
  for (let at = 0; at < stream.length; ) {
    const size = 1 + random.next(random.pick([8, 100, 5000]));
    pieces.push(stream.subarray(at, at + size));
    at += size;
  }
  return pieces;
}

const BITS = [
  '{',
  '}',
  '[',
  ']',
  ',',
  ':',
  '"',
  "'",
  '\\',
  '\\u',
  'd800',
  '\n',
  ' ',
  '0',
  '-',
  '1.5',
  'e9',
  'true',
  'nul',
  '\xff',
];

/** Bytes that look like JSON here and there. */
export function hostileJson(next: (below: number) => number): Buffer {
  const parts: Buffer[] = [];
  for (let count = 1 + next(40); count > 0; count--) {
    const kind = next(10);
    if (kind < 7) parts.push(Buffer.from(BITS[next(BITS.length)] ?? '', 'latin1'));
    else if (kind < 9) parts.push(Buffer.from([next(256), next(256)]));
    else parts.push(Buffer.alloc(1 + next(400), BITS[next(BITS.length)], 'latin1'));
  }
  return Buffer.concat(parts);
}

/**
 * Calls `one` for each seed from 1 to `count`, `atOnce` at a time; `between` after each batch. The first seed that fails is in the message, as the variable
 * that replays it alone: `DOWNFOLD_SEED`.
 */
export async function forSeeds(
  count: number,
  one: (seed: number) => Promise<void>,
  between: () => Promise<void>,
  atOnce = 20,
): Promise<void> {
  const only = process.env['DOWNFOLD_SEED'];
  const seeds = only ? [Number(only)] : Array.from({ length: count }, (_, index) => index + 1);
  for (let start = 0; start < seeds.length; start += atOnce) {
    await Promise.all(
      seeds.slice(start, start + atOnce).map(async (seed) => {
        await one(seed).catch((cause: unknown) => {
          throw new Error(`DOWNFOLD_SEED=${seed}: ${cause}`, { cause });
        });
      }),
    );
    await between();
  }
}

/** Rejects when `work` takes more than a second. */
export function withinASecond<T>(work: Promise<T>): Promise<T> {
  return within(1, work);
}

async function within<T>(seconds: number, work: Promise<T>): Promise<T> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new Error('it hangs')), seconds * 1000);
  try {
    return await Promise.race([work, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Nothing may hang for more than a second. But beside others on a busy machine anything may: who took longer is tried again, alone, and has to make it once.
 * What never ends fails at once.
 */
export class Punctual {
  readonly #late: Map<string, () => Promise<unknown>> = new Map();

  /** @param name what it is called when it hangs */
  async time<T>(name: string, work: () => Promise<T>): Promise<T> {
    const begun = performance.now();
    const result = await within(60, work());
    if (performance.now() - begun > 1000) this.#late.set(name, work);
    return result;
  }

  /** Tries again what was late. Resolves with how much that was. */
  async settle(): Promise<number> {
    for (const [name, work] of this.#late) {
      let least = Number.POSITIVE_INFINITY;
      for (let attempt = 0; attempt < 5 && least > 1000; attempt++) {
        const begun = performance.now();
        await within(60, work());
        least = performance.now() - begun;
      }
      if (least > 1000) throw new Error(`${name}: it hangs for ${least.toFixed(0)} ms`);
    }
    return this.#late.size;
  }
}

/** Sends all pieces, hangs up, and waits until the server has hung up too; resolves with what it said. */
export function talk(path: string, pieces: readonly Buffer[]): Promise<Buffer> {
  return new Promise((resolve) => {
    const heard: Buffer[] = [];
    const socket = connect(path);
    // the server may hang up while it is being talked to
    socket.on('error', () => {});
    socket.on('close', () => resolve(Buffer.concat(heard)));
    socket.on('data', (bytes: Buffer) => heard.push(bytes));
    for (const piece of pieces) socket.write(piece);
    socket.end();
  });
}
