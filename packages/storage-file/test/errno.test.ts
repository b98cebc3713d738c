import { StorageError } from '@downfold/storage';
import { expect, test } from 'vitest';
import { calling, storageError } from '../src/errno.ts';
import { systemError } from './support.ts';

test.each([
  ['ENOENT', 'STORAGE_NOT_FOUND'],
  ['ENOTDIR', 'STORAGE_NOT_FOUND'],
  ['ELOOP', 'STORAGE_NOT_FOUND'],
  ['EEXIST', 'STORAGE_EXISTS'],
  ['EISDIR', 'STORAGE_NOT_REGULAR'],
  ['ENXIO', 'STORAGE_NOT_REGULAR'],
  ['EACCES', 'STORAGE_ACCESS'],
  ['EPERM', 'STORAGE_ACCESS'],
  ['EROFS', 'STORAGE_ACCESS'],
  ['ETXTBSY', 'STORAGE_ACCESS'],
  ['ENOSPC', 'STORAGE_NO_SPACE'],
  ['EDQUOT', 'STORAGE_NO_SPACE'],
  ['EFBIG', 'STORAGE_NO_SPACE'],
  ['EIO', 'STORAGE_IO'],
  ['EAGAIN', 'STORAGE_IO'],
])('%s is %s', (errno, code) => {
  const cause = systemError(errno);
  const error = storageError(cause, '/disks/a.qcow2', 'pwrite', 4096);
  expect(error).toMatchObject({
    code,
    cause,
    details: { file: '/disks/a.qcow2', call: 'pwrite', errno, offset: 4096 },
  });
  expect(error.message).toMatch(/^\/disks\/a\.qcow2: .+ \(E\w+ in pwrite at byte 4096\)$/);
});

test('an error that has its code already keeps it', async () => {
  const error = new StorageError('STORAGE_NOT_REGULAR', 'a FIFO');
  await expect(calling('/a', 'open', () => Promise.reject(error))).rejects.toBe(error);
});
