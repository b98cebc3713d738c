import { constants, readdirSync, readFileSync, statSync } from 'node:fs';
import fs from 'node:fs/promises';
import { join } from 'node:path';
import { openStorage } from '@downfold/storage';
import { byteLength, hostOffset } from '@downfold/units';
import { describe, expect, test } from 'vitest';
import { nodeCalls } from '../src/calls.ts';
import { FileDriver } from '../src/file-driver.ts';
import { fileBackend } from '../src/index.ts';
import { openFile } from '../src/open-file.ts';
import { scratch, systemError } from './support.ts';

const SYSTEM = '/sys/class/block';

/** Block devices of this machine that have a node in /dev. */
function devices(): string[] {
  try {
    return readdirSync(SYSTEM).filter(
      (name) => statSync(`/dev/${name}`, { throwIfNoEntry: false })?.isBlockDevice() === true,
    );
  } catch {
    return [];
  }
}

const here = devices();
if (here.length === 0) console.warn('NO block device: their facts are not tested');

describe.skipIf(here.length === 0)('block devices of this machine', () => {
  test('have the length that the kernel says, and are told apart by their number', async () => {
    const backend = fileBackend();
    const identities = new Set<string>();
    for (const name of here) {
      const facts = await backend.facts(`/dev/${name}`);
      expect(facts.kind).toBe('block-device');
      expect(facts.length).toBe(Number(readFileSync(`${SYSTEM}/${name}/size`, 'utf8')) * 512);
      identities.add(`${facts.identity.device}:${facts.identity.inode}`);
    }
    expect(identities.size).toBe(here.length);
  });
});

/** A driver that takes a file for a device of one page, whose end the kernel guards with ENOSPC. */
async function pretendedDevice(path: string): Promise<FileDriver> {
  await fs.writeFile(path, new Uint8Array(4096).fill(7));
  const descriptor = await openFile(path, constants.O_RDWR);
  return new FileDriver(
    {
      descriptor,
      label: path,
      writable: true,
      identity: { device: '1', inode: '0' },
      deviceLength: 4096,
    },
    {
      ...nodeCalls,
      writeSync: (fd, source, offset) => {
        if (offset >= 4096) throw systemError('ENOSPC');
        return nodeCalls.writeSync(fd, source.subarray(0, 4096 - offset), offset);
      },
    },
  );
}

describe('a device', () => {
  test('cannot be resized', async () => {
    await using directory = await scratch();
    await using device = openStorage(await pretendedDevice(join(directory.path, 'device')));
    expect(await device.length()).toBe(4096);
    expect(device.supports).toEqual({ discard: false, resize: false });
    await expect(device.setLength(byteLength(100))).rejects.toMatchObject({
      code: 'STORAGE_UNSUPPORTED',
    });
  });

  test('refuses writes and zeros past its end, and zeros nothing then', async () => {
    await using directory = await scratch();
    await using device = openStorage(await pretendedDevice(join(directory.path, 'device')));
    await expect(
      device.writeZeroes({ offset: hostOffset(4000), length: byteLength(200) }),
    ).rejects.toMatchObject({ code: 'STORAGE_NO_SPACE' });
    await expect(device.write(hostOffset(4096), new Uint8Array(1))).rejects.toMatchObject({
      code: 'STORAGE_NO_SPACE',
    });
    const bytes = new Uint8Array(4096);
    await device.read(hostOffset(0), bytes);
    expect(bytes).toEqual(new Uint8Array(4096).fill(7));
  });
});
