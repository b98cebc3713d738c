import { combination, combinations, type Digit, imageOf, type Status, spread } from './columns.ts';
import { Draw } from './draw.ts';
import type { Setting, SettingImage } from './setting.ts';

const ANY: readonly Status[] = ['-', 'd', 'z', 'E'];

/** Streams over `layers` layers between base, or nothing, and top: every allocation and size; overlays beside them. */
export function* streamSettings(
  layers: number,
  count: number,
): Generator<Setting, void, undefined> {
  const names = Array.from({ length: layers }, (_, at) => `M${at + 1}`);
  const digits: Digit<Status>[] = [
    ...names.map((name) => ({ name, values: ANY })),
    { name: 'T', values: ANY },
    { name: 'B', values: ['none', ...ANY] },
    { name: 'X', values: ['none', 'M1', 'T'] },
  ];
  for (const index of spread(count, combinations(digits)))
    yield streamSetting(names, combination(digits, index), index);
}

function streamSetting(
  names: readonly string[],
  chosen: ReadonlyMap<string, Status>,
  seed: number,
): Setting {
  const draw = new Draw(seed);
  const of = (name: string): Status => chosen.get(name) ?? 'none';
  const width = draw.of([1, 1, 2]);
  const images: SettingImage[] = [];
  const put = (name: string, status: Status, backing = images.at(-1)?.name ?? null): void => {
    const unit = width === 1 ? 1 : draw.of([1, 2]);
    images.push(imageOf(name, backing, status, { width, unit }, draw));
  };
  const hasBase = of('B') !== 'none';
  if (hasBase && draw.once(3)) put('L', 'd');
  if (hasBase) put('B', of('B'));
  for (const name of [...names, 'T']) put(name, of(name));
  if (of('X') !== 'none') put('X', '-', of('X'));
  return {
    images,
    operation: 'stream',
    leaf: 'T',
    base: hasBase ? 'B' : null,
    top: 'T',
    emptyTop: false,
    siblings: 'invalidate',
    keepUndo: false,
    unsafe: false,
    checkpointSectors: draw.of([2, 4, 16]),
    stages: true,
    batch: draw.of([1, 16]),
    slow: draw.once(2),
  };
}
