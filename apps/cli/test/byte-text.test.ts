import { expect, it, vi } from 'vitest';
import { ByteText, digitsOf } from '../src/output/byte-text.ts';

/** Prints integers, each followed by a blank, as `ByteText` puts them together. */
async function printed(numbers: readonly number[]): Promise<string> {
  const parts: string[] = [];
  const write = vi.spyOn(process.stdout, 'write').mockImplementation((bytes, ...rest) => {
    parts.push(Buffer.from(bytes as Uint8Array).toString('latin1'));
    for (const done of rest) if (typeof done === 'function') done();
    return true;
  });
  try {
    const text = new ByteText();
    for (const number of numbers) {
      text.reserve(17);
      text.text(Buffer.from(`${'0'.repeat(digitsOf(number))} `));
      text.number(number, 1);
    }
    await text.print();
  } finally {
    write.mockRestore();
  }
  return parts.join('');
}

it('writes integers as everybody does, at every power of ten and two', async () => {
  const powers = [
    ...Array.from({ length: 16 }, (_, power) => 10 ** power),
    ...Array.from({ length: 54 }, (_, power) => 2 ** power),
  ];
  const around = powers.flatMap((power) => [power - 1, power, power + 1]);
  const numbers = [0, ...around.filter((number) => Number.isSafeInteger(number))];
  expect(await printed(numbers)).toBe(numbers.map((number) => `${number} `).join(''));
});

it('makes room for more than it is meant to hold', async () => {
  const numbers = Array.from({ length: 100_000 }, (_, index) => index * 1_000_003);
  expect(await printed(numbers)).toBe(numbers.map((number) => `${number} `).join(''));
});
