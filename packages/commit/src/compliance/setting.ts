import type { NodeId } from '@downfold/chain';
import type { Operation } from '../plan.ts';

/** The smallest thing that a crash keeps or loses. */
export const SECTOR_BYTES = 512;

/** One image of a setting. */
export interface SettingImage {
  readonly name: NodeId;
  readonly backing: NodeId | null;
  /** One letter a sector of its virtual disk; see `cellOf`. All sectors of a unit are alike: unallocated, zeros or data. */
  readonly cells: string;
  /** Sectors of one allocation unit. */
  readonly unit: number;
  /** Of a format without allocation, as raw: all data, no backing file, nothing to deallocate or stage. */
  readonly flat: boolean;
}

/** A pool of small images and what is asked for: one run of the model. */
export interface Setting {
  /** Overlays after their backing files. */
  readonly images: readonly SettingImage[];
  readonly operation: Operation;
  /** The chain ends here. */
  readonly leaf: NodeId;
  readonly base: NodeId | null;
  readonly top: NodeId;
  readonly emptyTop: boolean;
  readonly siblings: 'invalidate' | 'keep';
  readonly keepUndo: boolean;
  readonly unsafe: boolean;
  /** Sectors copied between two checkpoints at most. */
  readonly checkpointSectors: number;
  /** Whether the format of images that are not flat can be staged on. */
  readonly stages: boolean;
  /** Extents that a view hands out at once. */
  readonly batch: number;
  /** Views show what was copied only after the next barrier: copies take their time. */
  readonly slow: boolean;
  /**
   * The disk of the leaf is in use, and its client writes one sector of its own, once so many steps were taken; null: it writes nothing.
   * Absent: nobody uses it.
   */
  readonly client?: { readonly sector: number; readonly after: number } | null;
}

/** A setting in one line, for messages. */
export function textOf(setting: Setting): string {
  const { images, operation, base, top, siblings, checkpointSectors, batch, client } = setting;
  const use =
    client == null ? '' : `, sector ${client.sector} is written after step ${client.after}`;
  const image = ({ name, backing, cells, unit, flat }: SettingImage): string =>
    `${name}${backing === null ? '' : `@${backing}`}=${cells}${unit === 1 ? '' : `*${unit}`}${flat ? ' flat' : ''}`;
  const flags = (['emptyTop', 'keepUndo', 'unsafe', 'stages', 'slow'] as const)
    .filter((flag) => setting[flag])
    .map((flag) => `, ${flag}`);
  return `[${images.map(image).join('] [')}] ${operation} top ${top} base ${base}, siblings ${siblings}, checkpoint ${checkpointSectors}, batch ${batch}${flags.join('')}${use}`;
}
