import { verify } from '@downfold/compliance';
import { imageKit, imageSubject } from '@downfold/image/compliance';
import { memoryBackend } from '@downfold/storage-memory';
import { describe, test } from 'vitest';
import { raw } from '../src/index.ts';

describe('raw keeps the contract of an image', () => {
  verify(imageKit, imageSubject({ format: raw, backend: () => memoryBackend() }), test);
});
