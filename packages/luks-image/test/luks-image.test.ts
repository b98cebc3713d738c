import { imageSecret } from '@downfold/image';
import { memoryBackend } from '@downfold/storage-memory';
import { byteLength, guestOffset, hostOffset } from '@downfold/units';
import { expect, it } from 'vitest';
import { luks } from '../src/index.ts';
import { encryption, passphrase } from './support.ts';

const SIZE = 1 << 16;
const backend = memoryBackend();
let files = 0;

/** A new image with `text` at its start; its path. */
async function made(text = 'a secret of the guest'): Promise<string> {
  const path = `/${++files}.luks`;
  const storage = await backend.create(path, { secret: false });
  await using image = await luks.create(storage, {
    virtualSize: byteLength(SIZE),
    encryption: encryption(),
  });
  await image.write(guestOffset(0), Buffer.from(text), { fill: null });
  await image.flush();
  return path;
}

/** Opens it, and closes the file where that is refused. */
async function opening(
  path: string,
  options: Partial<Parameters<typeof luks.open>[1]> = {},
): Promise<Awaited<ReturnType<typeof luks.open>>> {
  const { mode = 'read' } = options;
  const storage = await backend.open(path, mode);
  return luks.open(storage, { secret: imageSecret(passphrase), ...options, mode });
}

it('is recognised by its first bytes, version 1 alone', async () => {
  await using file = await backend.open(await made(), 'read');
  const head = new Uint8Array(512);
  await file.read(hostOffset(0), head);
  expect(luks.recognises(head)).toBe(true);
  expect(luks.recognises(head.with(7, 2))).toBe(false);
  expect(luks.recognises(head.with(0, 0))).toBe(false);
  expect(luks.recognises(head.subarray(0, 4))).toBe(false);
});

it('needs its secret, but to be described', async () => {
  const path = await made();
  const needed = { code: 'IMAGE_SECRET_NEEDED', details: { image: path } };
  await expect(opening(path, { secret: null })).rejects.toMatchObject(needed);
  const other = imageSecret(Buffer.from('open says me'));
  await expect(opening(path, { secret: other })).rejects.toMatchObject({
    code: 'IMAGE_WRONG_SECRET',
  });
  await using locked = await opening(path, { secret: null, allowLocked: true });
  expect([locked.encrypted, locked.geometry.virtualSize]).toEqual([true, SIZE]);
  expect((await locked.describe()).specific).toMatchObject({ 'cipher-alg': 'aes-256' });
  await expect(locked.read(guestOffset(0), new Uint8Array(4), null)).rejects.toMatchObject(needed);
});

it('is refused where it is none, another version, cut off, too large, or too slow to try', async () => {
  const path = await made();
  const with_ = async (at: number, ...bytes: readonly number[]): Promise<string> => {
    const copy = await made();
    await using file = await backend.open(copy, 'write');
    await file.write(hostOffset(at), Uint8Array.from(bytes), { what: 'damage' });
    return copy;
  };
  const code = async (file: string, options = {}): Promise<string> =>
    opening(file, options).then(
      () => 'opened',
      (cause: { readonly code: string }) => cause.code,
    );
  expect(await code(await with_(0, 0))).toBe('IMAGE_NOT_RECOGNISED');
  expect(await code(await with_(7, 2))).toBe('IMAGE_UNSUPPORTED');
  expect(await code(path, { limits: { virtualSize: byteLength(SIZE - 512) } })).toBe('IMAGE_LIMIT');
  expect(await code(path, { limits: { keyWork: 10 } })).toBe('IMAGE_LIMIT');
  const cut = await made();
  {
    await using file = await backend.open(cut, 'write');
    await file.setLength(byteLength(100_000));
  }
  expect(await code(cut)).toBe('IMAGE_CORRUPT');
  const short = await backend.create('/short', { secret: false });
  await expect(luks.open(short, { mode: 'read' })).rejects.toMatchObject({
    code: 'IMAGE_NOT_RECOGNISED',
  });
});

it('has the sector that its file ends in, as if zeros completed it', async () => {
  const path = await made();
  const sector = async (): Promise<Uint8Array> => {
    await using image = await opening(path);
    expect(image.geometry.virtualSize).toBe(SIZE);
    const bytes = new Uint8Array(512);
    await image.read(guestOffset(SIZE - 512), bytes, null);
    return bytes;
  };
  {
    await using file = await backend.open(path, 'write');
    const end = await file.length();
    await file.write(hostOffset(end - 100), new Uint8Array(100));
    const zeros = await sector();
    await file.setLength(byteLength(end - 100));
    expect(await sector()).toEqual(zeros);
  }
  {
    await using image = await opening(path, { mode: 'write' });
    await image.write(guestOffset(SIZE - 512), new Uint8Array(512).fill(7), { fill: null });
    await image.flush();
  }
  expect(await sector()).toEqual(new Uint8Array(512).fill(7));
});

it('keeps nothing of the guest in the clear, and no two images alike', async () => {
  const [one, other] = await Promise.all(
    [await made(), await made()].map(async (path) => {
      await using file = await backend.open(path, 'read');
      const bytes = Buffer.alloc(await file.length());
      await file.read(hostOffset(0), bytes);
      return bytes;
    }),
  );
  expect(one?.includes('a secret of the guest')).toBe(false);
  expect(one?.subarray(-SIZE).equals(other?.subarray(-SIZE) as Buffer)).toBe(false);
});
