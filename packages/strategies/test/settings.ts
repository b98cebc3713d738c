import type { Setting, SettingImage } from '@downfold/commit/compliance';

/** Images from lines like `T@B --dz*2`: a name, what it lies on, a letter a sector, and sectors of a unit; bottom first. */
export function images(...lines: readonly string[]): readonly SettingImage[] {
  return lines.map((line) => {
    const [names = '', layout = ''] = line.split(' ');
    const [name = '', backing = null] = names.split('@');
    const [cells = '', unit = 1] = layout.split('*');
    return { name, backing, cells, unit: Number(unit), flat: false };
  });
}

/** A commit of `T` into `B` under the leaf `A`, if there is one. */
export function commitOf(lines: readonly string[], changes: Partial<Setting> = {}): Setting {
  const pool = images(...lines);
  return {
    images: pool,
    operation: 'commit',
    leaf: pool.some(({ name }) => name === 'A') ? 'A' : 'T',
    base: 'B',
    top: 'T',
    emptyTop: false,
    siblings: 'invalidate',
    keepUndo: false,
    unsafe: false,
    checkpointSectors: 16,
    stages: true,
    batch: 16,
    slow: false,
    ...changes,
  };
}

/** Bytes of so many sectors. */
export const sectors = (count: number): number => 512 * count;
