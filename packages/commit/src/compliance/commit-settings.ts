import { combination, combinations, type Digit, imageOf, type Status, spread } from './columns.ts';
import { Draw } from './draw.ts';
import type { Setting, SettingImage } from './setting.ts';

const ANY: readonly Status[] = ['-', 'd', 'z', 'E'];

/**
 * Commits of `layers` layers: every allocation of base, the layers, an overlay of base, and the sizes of all of them; with and without an
 * overlay of top, a second one, and an overlay of an intermediate. Units, what lies below base and how much is copied between
 * two checkpoints are drawn.
 */
export function* commitSettings(
  layers: number,
  count: number,
  keep: boolean,
): Generator<Setting, void, undefined> {
  const names = Array.from({ length: layers }, (_, at) => (at === layers - 1 ? 'T' : `M${at + 1}`));
  const digits: Digit<Status>[] = [
    { name: 'B', values: ANY },
    ...names.map((name) => ({ name, values: ANY })),
    { name: 'A', values: ['emptyTop', 'none', '-', 'E'] },
    { name: 'S', values: ['none', '-', 'd', 'E'] },
    { name: 'R', values: ['none', ...names.slice(0, -1)] },
    { name: 'Q', values: ['none', '-'] },
  ];
  for (const index of spread(count, combinations(digits)))
    yield commitSetting(names, combination(digits, index), index, keep);
}

function commitSetting(
  names: readonly string[],
  chosen: ReadonlyMap<string, Status>,
  seed: number,
  keep: boolean,
): Setting {
  const draw = new Draw(seed);
  const of = (name: string): Status => chosen.get(name) ?? 'none';
  const [below, width] = [draw.of(['none', 'none', 'd', 'E']), draw.of([1, 1, 2])];
  const image = (name: string, backing: string | null, status: Status): SettingImage =>
    imageOf(name, backing, status, { width, unit: width === 1 ? 1 : draw.of([1, 2]) }, draw);
  const images: SettingImage[] = [];
  if (below !== 'none') images.push(image('L', null, below));
  images.push(image('B', images.at(-1)?.name ?? null, of('B')));
  for (const name of names) images.push(image(name, images.at(-1)?.name ?? null, of(name)));
  const emptyTop = of('A') === 'emptyTop';
  const hasOverlay = !emptyTop && of('A') !== 'none';
  if (hasOverlay) images.push(image('A', 'T', of('A')));
  if (of('S') !== 'none') images.push(image('S', 'B', of('S')));
  if (of('R') !== 'none') images.push(image('R', of('R'), '-'));
  if (of('Q') !== 'none' && !emptyTop) images.push(image('Q', 'T', '-'));
  return {
    images,
    operation: 'commit',
    leaf: hasOverlay ? 'A' : 'T',
    base: 'B',
    top: 'T',
    emptyTop,
    siblings: keep && draw.once(2) ? 'keep' : 'invalidate',
    keepUndo: draw.once(4),
    unsafe: false,
    checkpointSectors: draw.of([2, 4, 16]),
    stages: true,
    batch: draw.of([1, 16]),
    slow: draw.once(2),
  };
}
