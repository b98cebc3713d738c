import { crc32 } from 'node:zlib';
import {
  DEFAULT_IMAGE_LIMITS,
  FlatImage,
  type Image,
  ImageError,
  type ImageLimits,
  type OpenImageOptions,
} from '@downfold/image';
import type { Storage } from '@downfold/storage';
import { alignUp, hostOffset, SECTOR_BYTES } from '@downfold/units';
import { isLuks } from './recognise.ts';

/** Opens an image: checks its header, and finds the key that its secret opens. Writes nothing. @throws ImageError */
export async function openImage(file: Storage, options: OpenImageOptions): Promise<Image> {
  const { mode, signal } = options;
  signal?.throwIfAborted();
  const limits: ImageLimits = { ...DEFAULT_IMAGE_LIMITS, ...options.limits };
  const magic = new Uint8Array(SECTOR_BYTES);
  await file.read(hostOffset(0), magic);
  if (!isLuks(magic))
    throw new ImageError('IMAGE_NOT_RECOGNISED', `${file.label}: is not a LUKS image`, {
      image: file.label,
    });
  // with it comes all of Node's crypto
  const { decrypted, describeHeader, readImageHeader } = await import('@downfold/luks');
  const length = await file.length();
  const header = await readImageHeader(file, 0, length);
  const { payloadAt } = header.luks;
  // a file that ends inside a sector reads as if zeros completed it, as in QEMU
  const virtualSize = alignUp(length, SECTOR_BYTES) - payloadAt;
  if (virtualSize < 0)
    throw new ImageError('IMAGE_CORRUPT', `${file.label}: ends before its disk begins`, {
      image: file.label,
      offset: payloadAt,
    });
  if (virtualSize > limits.virtualSize)
    throw new ImageError(
      'IMAGE_LIMIT',
      `${file.label}: virtual size ${virtualSize} is above the limit of ${limits.virtualSize} bytes`,
      { image: file.label, limit: limits.virtualSize, found: virtualSize },
    );
  const { keyWork } = limits;
  return new FlatImage({
    format: 'luks',
    file,
    data: await decrypted(file, header, file, payloadAt, { ...options, keyWork }),
    start: payloadAt,
    virtualSize,
    writable: mode === 'write' && file.writable,
    encrypted: true,
    fingerprint: crc32(header.bytes).toString(16).padStart(8, '0'),
    specific: describeHeader(header.luks),
  });
}
