import { combination, combinations, type Digit, imageOf, type Status, spread } from './columns.ts';
import { Draw } from './draw.ts';
import type { Setting, SettingImage } from './setting.ts';

const ANY: readonly Status[] = ['-', 'd', 'z', 's', 'E'];

/**
 * Rebases from two layers to nothing, to the lower one, or to other images that may hold the same: every allocation and size of
 * the old and the new backing files and of top.
 */
export function* rebaseSettings(count: number): Generator<Setting, void, undefined> {
  const digits: Digit<Status>[] = [
    { name: 'M1', values: ANY },
    { name: 'M2', values: ANY },
    { name: 'T', values: ['-', 'd', 'z', 'E'] },
    { name: 'N', values: [...ANY, 'o'] },
    { name: 'to', values: ['nothing', 'M1', 'M2', 'N', 'N@M1', 'N@M2'] },
  ];
  for (const index of spread(count, combinations(digits)))
    yield rebaseSetting(combination(digits, index), index);
}

function rebaseSetting(chosen: ReadonlyMap<string, Status>, seed: number): Setting {
  const draw = new Draw(seed);
  const of = (name: string): Status => chosen.get(name) ?? '-';
  const width = draw.of([1, 1, 2]);
  const images: SettingImage[] = [];
  const put = (name: string, backing: string | null): void => {
    const unit = width === 1 ? 1 : draw.of([1, 2]);
    images.push(imageOf(name, backing, of(name), { width, unit }, draw));
  };
  put('M1', null);
  put('M2', 'M1');
  put('T', 'M2');
  const [base, under] = of('to').split('@') as [string, string?];
  if (base === 'N') put('N', under ?? null);
  return {
    images,
    operation: 'rebase',
    leaf: 'T',
    base: base === 'nothing' ? null : base,
    top: 'T',
    emptyTop: false,
    siblings: 'invalidate',
    keepUndo: false,
    unsafe: draw.once(16),
    checkpointSectors: draw.of([2, 4, 16]),
    stages: true,
    batch: draw.of([1, 16]),
    slow: draw.once(2),
  };
}
