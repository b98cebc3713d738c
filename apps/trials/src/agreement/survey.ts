import { availableParallelism } from 'node:os';
import { markdownTable } from '../tools/docs.ts';
import { inLanes } from '../tools/parallel.ts';
import { scratch } from '../tools/scratch.ts';
import { agreementCases } from './cases.ts';
import { agrees, CLASSES, classOf, type Judged } from './classes.ts';
import { verdictOfDownfold, verdictOfQemu } from './verdict.ts';

/** Asks both about every case. In the order of the cases. */
export async function survey(): Promise<readonly Judged[]> {
  const judged = new Map<number, Judged>();
  await inLanes(
    availableParallelism(),
    [...agreementCases().entries()],
    async ([index, { image, ...about }]) => {
      await using directory = await scratch('agreement');
      const downfold = await verdictOfDownfold(image);
      judged.set(index, { ...about, downfold, qemu: await verdictOfQemu(image, directory.path) });
    },
  );
  return [...judged].sort(([a], [b]) => a - b).map(([, one]) => one);
}

/** A line for each difference that nothing explains, and for each class without a difference. */
export function problemsOf(all: readonly Judged[]): readonly string[] {
  const different = all.filter((one) => !agrees(one));
  const used = new Set(different.map(classOf));
  return [
    ...different
      .filter((one) => classOf(one) === undefined)
      .map(
        ({ kind, field, value, qemu, downfold }) =>
          `${kind}, ${field} = ${value}: QEMU ${words(qemu)}; Downfold ${words(downfold)}`,
      ),
    ...CLASSES.filter((one) => !used.has(one)).map(
      ({ name }) => `nothing differs as '${name}' says`,
    ),
  ];
}

/** The tables of docs/hostile-images.md: what differs and why, then every case. */
export function pageOf(all: readonly Judged[]): string {
  const alike = all.filter(agrees).length;
  const classes = CLASSES.map(({ name, why }) => [
    name,
    String(all.filter((one) => !agrees(one) && classOf(one)?.name === name).length),
    why,
  ]);
  const groups = Map.groupBy(all, ({ kind, field }) => `${kind}\0${field}`);
  const rows = [...groups.values()].flatMap((group) => {
    const verdicts = Map.groupBy(group, (one) => `${words(one.qemu)}\0${words(one.downfold)}`);
    return [...verdicts.values()].map((some) => {
      const [one] = some;
      if (one === undefined) return [];
      const same = agrees(one);
      const values = some.map(({ value }) => value).join(' ');
      return [
        one.kind,
        one.field,
        values,
        words(one.qemu),
        same ? 'the same' : words(one.downfold),
        same ? '' : (classOf(one)?.name ?? 'not explained'),
      ];
    });
  });
  return [
    `${all.length} images: QEMU and Downfold make the same of ${alike}, and differ on ${all.length - alike}:`,
    '',
    markdownTable(['difference', 'images', 'why'], classes),
    '',
    'Every image is a valid one with one field changed:',
    '',
    markdownTable(['image', 'field', 'values', 'QEMU', 'Downfold', 'difference'], rows),
  ].join('\n');
}

function words({ read, write, check }: Judged['qemu']): string {
  return `${read}, ${write === 'opens' ? 'opens rw' : 'not rw'}, check ${check}`;
}
