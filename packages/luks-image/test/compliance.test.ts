import { currentTier, verify } from '@downfold/compliance';
import { imageKit, imageSubject } from '@downfold/image/compliance';
import { memoryBackend } from '@downfold/storage-memory';
import { describe, test } from 'vitest';
import { withSecret } from './support.ts';

// a gibibyte of zeros is encrypted for one case
const cases =
  currentTier() === 'quick' ? imageKit.filter(({ id }) => id !== 'extents/far-apart') : imageKit;

describe('luks keeps the contract of an image', () => {
  verify(cases, imageSubject({ format: withSecret(), backend: () => memoryBackend() }), test);
});
