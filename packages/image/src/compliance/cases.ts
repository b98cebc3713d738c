import type { CaseContext, ComplianceCase } from '@downfold/compliance';
import type { ImageAbility } from '../image.ts';
import type { Layer } from './layer.ts';
import type { ImageTestBed } from './test-bed.ts';

/** One thing that every image format must do. */
export type ImageCase = ComplianceCase<ImageTestBed, ImageAbility>;

/** A case about one image, whatever lies below it. */
export interface LayerCase extends Omit<ImageCase, 'run'> {
  run(layer: Layer, bed: ImageTestBed, context: CaseContext): Promise<void>;
}

/** Each case twice: on an image without a backing file, and (`.../backed`) on an overlay. `Layer.settle` follows. */
export function layerCases(items: readonly LayerCase[]): readonly ImageCase[] {
  return items.flatMap((item) => [
    {
      ...item,
      run: async (bed, context) => {
        const layer = await bed.layer();
        await item.run(layer, bed, context);
        await layer.settle();
      },
    },
    {
      ...item,
      id: `${item.id}/backed`,
      needs: ['backing', ...(item.needs ?? [])],
      run: async (bed, context) => {
        const layer = await bed.layer({ backed: true });
        await item.run(layer, bed, context);
        await layer.settle();
      },
    },
  ]);
}

/** First byte of the last cluster of a disk, which the end of the disk may cut. */
export function lastCluster(size: number, cluster: number): number {
  return size - (size % cluster || cluster);
}
