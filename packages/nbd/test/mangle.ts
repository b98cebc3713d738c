import type { Random } from './support.ts';

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
