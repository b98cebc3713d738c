import { assertSameBytes } from '@downfold/compliance';
import { byteLength, guestOffset, hostOffset } from '@downfold/units';
import { type ImageCase, layerCases } from './cases.ts';
import { expectEqual, expectRefused, fail, rejectionOf } from './expect.ts';
import { expectSound } from './layer.ts';
import { BACKING } from './test-bed.ts';

const SECTOR_BYTES = 512;

/** `ImageFormat`: creating, recognising, opening, closing. */
export const formatCases: readonly ImageCase[] = [
  ...layerCases([
    {
      id: 'create/facts',
      because: 'callers plan with what an image says of itself',
      run: async (layer, bed) => {
        const { image } = layer;
        const storage = await layer.file.open();
        expectEqual(image.label, storage.label, 'label');
        await storage[Symbol.asyncDispose]();
        expectEqual(image.format, bed.format.name, 'format');
        expectEqual([image.writable, image.mark], [true, null], 'writable and mark');
        expectEqual(image.backing, layer.belowBytes === null ? null : BACKING, 'backing');
        const { clusterSize, allocationGranularity } = image.geometry;
        expectEqual(layer.size, bed.size, 'virtual size');
        if (allocationGranularity < 1 || clusterSize % allocationGranularity !== 0)
          fail(`clusters of ${clusterSize} bytes do not divide into ${allocationGranularity}`);
        if (!/^[0-9a-f]{8}$/.test(image.fingerprint)) fail(`fingerprint ${image.fingerprint}`);
        const facts = await image.describe();
        expectEqual(JSON.parse(JSON.stringify(facts)), facts, 'describe() through JSON');
      },
    },
    {
      id: 'open/same-facts',
      because: 'what an image says of itself is in the file',
      run: async (layer) => {
        const facts = async () => {
          const { geometry, backing, mark, fingerprint } = layer.image;
          return { geometry, backing, mark, fingerprint, described: await layer.image.describe() };
        };
        const before = await facts();
        await layer.reopen('write');
        expectEqual(await facts(), before, 'facts, opened for writing');
        expectEqual(layer.image.writable, true, 'writable');
        await layer.reopen('read');
        expectEqual(await facts(), before, 'facts, opened for reading');
        expectEqual(layer.image.writable, false, 'writable');
      },
    },
    {
      id: 'open/unchanged',
      because: 'who opens an image for writing and closes it has changed nothing yet',
      run: async (layer, { cluster }) => {
        await layer.write(cluster / 2, cluster);
        await layer.image.flush();
        await layer.reopen('read');
        const [bytes, changes] = [await layer.file.bytes(), layer.file.changes];
        for (const mode of ['read', 'write', 'read'] as const) await layer.reopen(mode);
        expectEqual(layer.file.changes, changes, 'changes by opening and closing');
        assertSameBytes(await layer.file.bytes(), bytes, 'the file');
      },
    },
    {
      id: 'create/durable',
      because: 'the engine makes no flush after a creation',
      run: async (layer, bed) => {
        const file = await bed.newFile();
        await file.startLog();
        await using _ = await bed.create(file, bed.size, layer.image.backing);
        await using image = await layer.openAfter(file.durable());
        expectEqual(image.geometry, layer.image.geometry, 'geometry after a crash');
        expectEqual(image.backing, layer.image.backing, 'backing after a crash');
        assertSameBytes(await layer.view(image), layer.model, 'the disk after a crash');
      },
    },
  ]),
  {
    id: 'create/sizes',
    because:
      'disks have any size; one that is no whole number of sectors may be rounded up, not down',
    run: async (bed) => {
      for (const size of [0, 512, 1000, bed.cluster, bed.cluster + 512, bed.cluster * 3 - 1]) {
        const file = await bed.newFile();
        const created = await bed.create(file, size, null);
        const { virtualSize } = created.geometry;
        if (virtualSize < size || virtualSize >= size + SECTOR_BYTES)
          fail(`asked for ${size} bytes, got ${virtualSize}`);
        await created[Symbol.asyncDispose]();
        await using image = await bed.format.open(await file.open(), { mode: 'read' });
        expectEqual(image.geometry.virtualSize, virtualSize, 'virtual size, opened again');
        const bytes = new Uint8Array(virtualSize).fill(1);
        await image.read(guestOffset(0), bytes, null);
        assertSameBytes(bytes, new Uint8Array(virtualSize), 'the disk');
        await expectSound(image);
      }
    },
  },
  {
    id: 'format/recognises-its-own',
    because: 'probing tells formats apart; what no magic tells must be named',
    run: async (bed) => {
      const file = await bed.newFile();
      await using image = await bed.create(file, bed.size, null);
      const head = (await file.bytes()).slice(0, SECTOR_BYTES);
      const others = [
        new Uint8Array(),
        new Uint8Array(SECTOR_BYTES),
        head.map((byte) => byte ^ 0x55),
      ];
      for (const other of others)
        expectEqual(bed.format.recognises(other), false, 'recognises other bytes');
      if (!bed.format.recognises(head)) return;
      for (const other of others) {
        const storage = await (await bed.newFile()).open();
        await storage.write(hostOffset(0), other);
        const attempt = () => bed.format.open(storage, { mode: 'read' });
        await expectRefused(attempt, 'IMAGE_NOT_RECOGNISED', `open of ${other.length} other bytes`);
        expectEqual(await storage.length(), other.length, 'length of the file, still open');
        await storage[Symbol.asyncDispose]();
      }
      expectEqual(image.format, bed.format.name, 'format');
    },
  },
  {
    id: 'open/owns-its-file',
    because: 'who opens an image closes the image, and with it the file, once or twice',
    run: async (bed) => {
      const file = await bed.newFile();
      const created = await bed.create(file, bed.size, null);
      await created[Symbol.asyncDispose]();
      const storage = await file.open();
      const image = await bed.format.open(storage, { mode: 'read' });
      await image[Symbol.asyncDispose]();
      await image[Symbol.asyncDispose]();
      if ((await rejectionOf(() => storage.length())) === null) fail('the file is still open');
    },
  },
  {
    id: 'open/limit',
    because: 'a hostile image may claim any size',
    run: async (bed) => {
      const layer = await bed.layer();
      await layer.close();
      const storage = await layer.file.open();
      const limits = (size: number) => ({ virtualSize: byteLength(size) });
      await expectRefused(
        () => bed.format.open(storage, { mode: 'read', limits: limits(bed.size - 1) }),
        'IMAGE_LIMIT',
        'open of a disk above the limit',
      );
      await using image = await bed.format.open(storage, {
        mode: 'read',
        limits: limits(bed.size),
      });
      expectEqual(image.geometry.virtualSize, bed.size, 'virtual size at the limit');
    },
  },
  {
    id: 'open/aborted',
    because: 'a rejected open or create leaves the file open: it is still the caller’s',
    run: async (bed) => {
      const file = await bed.newFile();
      const storage = await file.open();
      const signal = AbortSignal.abort(new Error('stop'));
      const creating = () =>
        bed.format.create(storage, { virtualSize: byteLength(bed.size), signal });
      expectEqual(await rejectionOf(creating), signal.reason, 'rejection of create');
      expectEqual(file.changes, 0, 'changes of the file');
      const created = await bed.format.create(storage, { virtualSize: byteLength(bed.size) });
      await created[Symbol.asyncDispose]();
      const again = await file.open();
      const opening = () => bed.format.open(again, { mode: 'read', signal });
      expectEqual(await rejectionOf(opening), signal.reason, 'rejection of open');
      await using image = await bed.format.open(again, { mode: 'read' });
      expectEqual(image.geometry.virtualSize, bed.size, 'virtual size');
    },
  },
  {
    id: 'create/backing-absent',
    because: 'a format without backing files must not drop one silently',
    whenAbsent: 'backing',
    run: async (bed) => {
      const storage = await (await bed.newFile()).open();
      const options = { virtualSize: byteLength(bed.size), backing: BACKING };
      await expectRefused(() => bed.format.create(storage, options), 'IMAGE_UNSUPPORTED', 'create');
      expectEqual(await storage.length(), 0, 'length of the file, still open');
      await storage[Symbol.asyncDispose]();
    },
  },
];
