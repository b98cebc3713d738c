import type { Random } from '@downfold/compliance';
import { expect } from 'vitest';
import type { NbdClient } from '../src/index.ts';

/** Where requests lie, and what they are: one of `kinds`, of which 0 is a write, 1 zeros, and the others are reads. */
export interface Work {
  /** Bytes from the start of one request's place to the next: ranges apart, so that the order does not matter. */
  readonly slot: number;
  /** Bytes that a request is moved within its place, and that it has, at most. */
  readonly most: number;
  readonly kinds: number;
}

/** Sixteen random requests at once. `model` shows what the disk does; reads must agree with it. */
export async function randomWork(
  client: NbdClient,
  model: Buffer,
  random: Random,
  { slot, most, kinds }: Work,
): Promise<void> {
  const work = Array.from({ length: 16 }, async (_, index) => {
    const offset = index * slot + random.next(most);
    const length = 1 + random.next(most);
    const kind = random.next(kinds);
    if (kind === 0) {
      const bytes = random.bytes(length);
      model.set(bytes, offset);
      return await client.write(offset, bytes);
    }
    if (kind === 1) {
      model.fill(0, offset, offset + length);
      return await client.writeZeroes(offset, length);
    }
    const target = Buffer.alloc(length, 0xaa);
    await client.read(offset, target);
    expect(target.equals(model.subarray(offset, offset + length))).toBe(true);
  });
  await Promise.all(work);
}
