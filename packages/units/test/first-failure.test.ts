import { expect, it } from 'vitest';
import { DownfoldError, firstFailure } from '../src/index.ts';

it('tells what failed first, not that closing failed after it', async () => {
  const first = new DownfoldError('IMAGE_CORRUPT', 'a refcount block is missing');
  const failing = (what: string): AsyncDisposable => ({
    [Symbol.asyncDispose]: () => Promise.reject(new Error(what)),
  });
  const work = async (): Promise<never> => {
    await using _file = failing('the file cannot be closed');
    await using _image = failing('its bitmaps cannot be saved');
    throw first;
  };
  const thrown = await work().catch((cause: unknown) => cause);
  expect(thrown).toBeInstanceOf(SuppressedError);
  expect(firstFailure(thrown)).toBe(first);
  expect(firstFailure(first)).toBe(first);
});
