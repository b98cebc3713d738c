import { verify } from '@downfold/compliance';
import { memoryBackend } from '@downfold/storage-memory';
import { describe, expect, test } from 'vitest';
import { imageKit, imageSubject } from '../src/compliance/index.ts';
import { decorated, ImageDecorator } from './image-decorator.ts';
import { toy } from './toy-format.ts';

const backend = () => memoryBackend();

test('every case has a name of its own and says why it is there', () => {
  const ids = imageKit.map(({ id }) => id);
  expect(new Set(ids).size).toBe(ids.length);
  for (const { id, because } of imageKit) {
    expect(id).toMatch(/^[a-z]+(\/[a-z-]+)+$/);
    expect(because.length, id).toBeGreaterThan(20);
  }
});

describe('the toy format keeps the contract', () => {
  for (const seed of [1, 2, 3])
    verify(
      imageKit,
      imageSubject({ format: toy, backend }),
      (name, body) => test(`${name}, seed ${seed}`, body),
      seed,
    );
});

describe('a decorator that passes everything on keeps the contract of what it wraps', () => {
  const format = decorated(toy, (image) => new ImageDecorator(image));
  verify(imageKit, imageSubject({ format, backend }), test);
});
