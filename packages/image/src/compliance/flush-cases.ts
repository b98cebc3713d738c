import { assertSameBytes } from '@downfold/compliance';
import { type ImageCase, layerCases } from './cases.ts';
import { expectEqual } from './expect.ts';
import { expectSound, type Layer } from './layer.ts';

/** `flush`: what had resolved before is durable. */
export const flushCases: readonly ImageCase[] = layerCases([
  {
    id: 'flush/durable',
    because: 'the journal records progress when a flush resolves; a lie is lost data',
    run: async (layer, { cluster }) => {
      await layer.file.startLog();
      await layer.write(cluster / 2, cluster);
      await layer.image.flush();
      await expectDurable(layer);
      await layer.write(0, 1);
      await layer.writeZeroes(cluster, cluster + 1);
      await layer.write(layer.size - 1, 1);
      await layer.image.flush();
      await expectDurable(layer);
    },
  },
  {
    id: 'flush/durable-copies',
    because: 'a commit copies, flushes, and only then deletes what it copied from',
    run: async (layer, bed) => {
      const source = await bed.copySource(bed.cluster * 2);
      await layer.file.startLog();
      await layer.copyFrom(source, 1, 0, bed.cluster * 2 - 1);
      await layer.image.flush();
      await expectDurable(layer);
    },
  },
  {
    id: 'flush/durable-deallocation',
    because: 'what was drained must not come back',
    needs: ['deallocate'],
    run: async (layer, { cluster }) => {
      await layer.write(0, cluster * 2);
      await layer.image.flush();
      await layer.file.startLog();
      await layer.deallocate(cluster, cluster);
      await layer.image.flush();
      await expectDurable(layer);
    },
  },
  {
    id: 'flush/of-nothing',
    because: 'barriers are asked for whether there is something to flush or not',
    run: async (layer, { cluster }) => {
      const { changes } = layer.file;
      await layer.image.flush();
      expectEqual(layer.file.changes, changes, 'changes of the file');
      await layer.write(0, cluster);
      await layer.image.flush();
      await layer.image.flush();
    },
  },
  {
    id: 'flush/while-writing',
    because: 'the engine copies the next epoch while it flushes the last one',
    run: async (layer, { cluster }) => {
      await layer.file.startLog();
      await layer.write(0, cluster);
      const before = layer.model.slice();
      const [flushed] = await Promise.all([
        layer.image.flush().then(() => layer.file.durable()),
        layer.write(cluster * 2, 9),
      ]);
      await using image = await layer.openAfter(flushed);
      const view = await layer.view(image);
      assertSameBytes(
        view.subarray(0, cluster * 2),
        before.subarray(0, cluster * 2),
        'what was flushed',
      );
      await expectSound(image);
    },
  },
]);

/** What was flushed reads the same after a power cut, and without leaks: nothing was under way. */
async function expectDurable(layer: Layer): Promise<void> {
  await using image = await layer.openAfter(layer.file.durable());
  assertSameBytes(await layer.view(image), layer.model, 'the disk after a crash');
  await expectSound(image);
}
