import { statSync } from 'node:fs';
import { perTier } from '@downfold/compliance';
import { describe, expect, it } from 'vitest';
import { DIFFERENCES } from './differences.ts';
import { downfoldMany } from './many.ts';
import { spoil } from './spoil-entry.ts';
import { type Bench, bench, type Ended, haveQemu } from './support.ts';
import { fillHoles, makeVaried, type VariedImage, variedCreate } from './varied-images.ts';

/** Command lines that both understand, for one image. */
function linesFor({ name, format, layers }: VariedImage): readonly (readonly string[])[] {
  const f = ['-f', format];
  const inBothForms = ['human', 'json'].flatMap((form) =>
    [
      ['info', ...f],
      ['info', '-U', '--backing-chain', ...f],
      ['check', ...f],
      ['check', '-q', '-U', '-T', 'none', ...f],
      ['map', ...f],
      ['map', '-U', ...f, '-s', '100k', '--max-length=1000000'],
    ].map((line) => [...line, `--output=${form}`, name]),
  );
  const compared = layers.flatMap((layer) =>
    [[], ['-s'], ['-q', '-U', '-T', 'none']].map((flags) => [
      'compare',
      ...flags,
      ...f,
      '-F',
      layer.format,
      name,
      layer.name,
    ]),
  );
  return [...inBothForms, ...compared];
}

/** One row of `map --output json`. */
interface Row {
  readonly start: number;
  readonly length: number;
  readonly depth: number;
  readonly present: boolean;
  readonly zero: boolean;
  readonly data: boolean;
  readonly offset?: number;
}

/** The ids of the differences between two maps, or `map`: one that has no reason. */
function mapDifferences(ours: readonly Row[], theirs: readonly Row[]): readonly string[] {
  const cuts = new Set(
    [...ours, ...theirs].flatMap(({ start, length }) => [start, start + length]),
  );
  const found = new Set<string>();
  for (const at of [...cuts].sort((a, b) => a - b).slice(0, -1)) {
    const [our, their] = [rowAt(ours, at), rowAt(theirs, at)];
    const difference = our === null || their === null ? 'map' : rowDifference(our, their);
    if (difference !== null) found.add(difference);
  }
  return [...found];
}

/** The row that holds a byte, from there on. */
function rowAt(rows: readonly Row[], at: number): Row | null {
  const row = rows.find(({ start, length }) => start <= at && at < start + length);
  if (row === undefined) return null;
  return row.offset === undefined ? row : { ...row, offset: row.offset + at - row.start };
}

function rowDifference(our: Row, their: Row): string | null {
  if (our.depth !== their.depth || our.present !== their.present) return 'map';
  if (our.zero === their.zero && our.data === their.data) {
    if (our.offset === their.offset) return null;
    return our.offset === undefined && !their.data ? 'preallocated' : 'map';
  }
  return our.data && their.data && our.offset === their.offset ? 'hole' : 'map';
}

/** What is known of an image that explains a difference. */
interface Known {
  /** Ids of differences between the maps, whole and in part. */
  readonly map: readonly string[];
  /** Clusters of the file. */
  readonly clusters: number;
}

/** What differs between the two, by id of the table; anything else is its own description. */
function differences(
  [verb, ...args]: readonly string[],
  ours: Ended,
  theirs: Ended,
  { map, clusters }: Known,
): readonly string[] {
  const json = args.includes('--output=json');
  if (verb === 'check' && leaksPast(clusters, ours)) return ['past-end'];
  if (ours.code !== theirs.code) return [`exit code ${ours.code}, not ${theirs.code}`];
  if (verb === 'map' && json) return mapDifferences(rowsOf(ours), rowsOf(theirs));
  if (verb === 'map' && map.includes('hole')) return ['hole'];
  if (json && theirs.stdout !== '') {
    expect(JSON.parse(ours.stdout)).toEqual(JSON.parse(theirs.stdout));
    return [];
  }
  return ours.stdout === theirs.stdout ? [] : [`${ours.stdout}\nis not\n${theirs.stdout}`];
}

function rowsOf({ stdout }: Ended): readonly Row[] {
  return JSON.parse(stdout) as readonly Row[];
}

/** Whether clusters are counted that a file of so many does not have: QEMU looks at none of them. */
function leaksPast(clusters: number, { stderr }: Ended): boolean {
  const leaked = [...stderr.matchAll(/^Leaked cluster (\d+) /gm)];
  return leaked.some(([, cluster]) => Number(cluster) >= clusters);
}

function knownOf(
  work: Bench,
  { name }: VariedImage,
  lines: readonly (readonly string[])[],
  ours: readonly Ended[],
  theirs: readonly Ended[],
): Known {
  const info = JSON.parse(work.must('qemu-img', 'info', '-U', '--output=json', name)) as {
    readonly 'cluster-size'?: number;
  };
  const map = lines.flatMap((line, index) =>
    line[0] === 'map' && line.includes('--output=json')
      ? mapDifferences(rowsOf(ours[index] as Ended), rowsOf(theirs[index] as Ended))
      : [],
  );
  const clusters = Math.ceil(statSync(work.file(name)).size / (info['cluster-size'] ?? 1));
  return { map, clusters };
}

describe.skipIf(!haveQemu)('the same command line, of qemu-img and of downfold', () => {
  const seeds = Array.from({ length: perTier({ quick: 2, ci: 8, long: 300 }) }, (_, seed) => seed);
  const reasons = new Set(DIFFERENCES.map(({ id }) => id));

  it.each(seeds)('for image %i', (seed) => {
    using work = bench();
    const image = makeVaried(work, seed);
    if (seed % 2 === 0) fillHoles(work, image);
    const lines = linesFor(image);
    const theirs = lines.map((line) => work.run('qemu-img', ...line));
    const ours = downfoldMany(work, lines);
    const known = knownOf(work, image, lines, ours, theirs);
    for (const [index, line] of lines.entries()) {
      const found = differences(line, ours[index] as Ended, theirs[index] as Ended, known);
      expect(
        found.filter((one) => !reasons.has(one)),
        line.join(' '),
      ).toEqual([]);
    }
  });

  it('makes new images', () => {
    const lines = Array.from({ length: perTier({ quick: 12, ci: 60, long: 600 }) }, (_, seed) =>
      variedCreate(seed),
    );
    using work = bench();
    for (const [index, ours] of downfoldMany(work, inDirectories(work, lines, 'o')).entries()) {
      const line = lines[index] as readonly string[];
      const [theirLine = []] = inDirectories(work, [line], 't');
      const theirs = work.run('qemu-img', ...theirLine);
      expect([ours.code, line.join(' ')]).toEqual([theirs.code, line.join(' ')]);
      if (theirs.code !== 0) continue;
      expect(ours.stdout.replace(/'o\d+\//, "'")).toBe(theirs.stdout.replace(/'t\d+\//, "'"));
      expect(infoOf(work, `o${index}/made`, line)).toEqual(infoOf(work, 't0/made', line));
      work.must('rm', 't0/made');
    }
  });

  it.each([
    ['create', '-f', 'qcow2', '-o', 'encryption=off,nocow=on,extent_size_hint=1M', 'new', '1M'],
    ['create', '-f', 'raw', '-o', 'extent_size_hint=1M,preallocation=full,nocow=on', 'new', '1M'],
    ['create', '-f', 'qcow2', '-o', 'compat=v2', '-b', 'none', '-F', 'qcow2', 'new'],
    ['check', '-f', 'qcow2', '--output=json', 'none'],
    ['check', '-f', 'qcow2', 'none'],
    ['rebase', '-q', '-u', '-f', 'qcow2', 'top'],
  ])('says the same: %s %s %s %s', (...line) => {
    using work = bench();
    work.must('qemu-img', 'create', '-q', '-f', 'qcow2', 'none', '0');
    work.must('qemu-img', 'create', '-q', '-f', 'qcow2', '-b', 'none', '-F', 'qcow2', 'top');
    const ours = work.downfold(...line);
    const shown = work.run('qemu-img', 'info', '-U', 'top').stdout;
    work.must('rm', '-f', 'new', 'top');
    work.must('qemu-img', 'create', '-q', '-f', 'qcow2', '-b', 'none', '-F', 'qcow2', 'top');
    const theirs = work.run('qemu-img', ...line);
    expect(ours).toEqual(theirs);
    expect(shown).toBe(work.run('qemu-img', 'info', '-U', 'top').stdout);
  });

  const lines: readonly (readonly [line: readonly string[], code: number])[] = [
    [['info', 'gone'], 1],
    [['info', '--output=xml', 'x'], 1],
    [['info', '-f', 'shape', 'x'], 1],
    [['info'], 1],
    [['info', '-f', 'qcow2', 'noise'], 1],
    [['map', 'gone'], 1],
    [['map', '-s', 'much', 'x'], 1],
    [['check', 'gone'], 1],
    [['check', '-f', 'raw', 'noise'], 63],
    [['check', '-f', 'qcow2', 'noise'], 1],
    [['check', '-T', 'odd', 'x'], 1],
    [['compare', 'x', 'gone'], 2],
    [['compare', '-f', 'qcow2', '-F', 'qcow2', 'x', 'noise'], 2],
    [['compare', '-s', 'x', 'good'], 1],
    [['compare', '-s', 'good', 'good'], 0],
    // zeros that keep their place, and that do not
    [['compare', '-s', 'kept', 'gone-to-zero'], 1],
    // an L2 entry with reserved bits, and compressed data that is none
    [['compare', 'x', 'entry'], 3],
    [['compare', 'x', 'packed'], 4],
    [['create', '-f', 'qcow2', 'new'], 1],
    [['create', '-f', 'qcow2', '-b', 'gone', '-F', 'qcow2', 'new', '1M'], 1],
    [['create', '-f', 'qcow2', '-b', 'x', 'new'], 1],
    [['create', '-f', 'qcow2', '-o', 'nolazy_refcounts', 'new', '1M'], 0],
    [['create', '-f', 'qcow2', '-o', 'nocow', 'never', '1M'], 1],
    [['snapshot', '-c', '', 'new'], 0],
    [['snapshot', '-d', '', 'new'], 0],
    [['rebase', '-u', '-F', 'raw', '-b', 'nbd://127.0.0.1:1/none', 'new'], 0],
    [['rebase', '-u', 'new'], 0],
    [['rebase', 'new'], 1],
    [['amend', '-f', 'qcow2', '-o', 'size=2000001', 'new'], 1],
    [['measure', '-O', 'qcow2', '--size', '2P'], 0],
    [['measure', '-O', 'qcow2', '--size', '4P'], 1],
    [['dd', '-f', 'qcow2', 'if=x', 'of=copy', 'bs=2G'], 1],
    [['measure', '-o', 'help'], 1],
    [['measure', '-O', 'qcow2', '-o', 'size=5M'], 1],
    [['measure', '-O', 'qcow2', '-o', 'size=5M', 'x'], 0],
    [['amend', '-f', 'qcow2', '-o', 'help'], 0],
    [['amend', '-f', 'raw', '-o', 'help'], 1],
    [['amend', '-o', 'compat=1.1'], 1],
    [['convert'], 1],
    [['convert', '-O', 'qcow2', '-o', 'help'], 0],
    [['convert', '-m', 'foo', 'x', 'copy'], 1],
    [['convert', '-m', '17', 'x', 'copy'], 1],
    [['convert', '-m', '0x10', 'x', 'copy'], 0],
    [['convert', '-C', '--salvage', 'x', 'copy'], 1],
    [['convert', '-C', '-S', '4k', 'x', 'copy'], 1],
    [['convert', '-C', '-c', '-O', 'qcow2', 'x', 'copy'], 1],
    [['convert', '-C', 'x', 'copy'], 0],
  ];

  it('ends with the same exit code', () => {
    using work = bench();
    work.must('qemu-img', 'create', '-q', '-f', 'qcow2', 'x', '1M');
    work.must('qemu-io', '-f', 'qcow2', '-c', 'write -P 7 0 64k', 'x');
    work.must('sh', '-c', 'head -c 1048576 /dev/urandom >noise; cp x entry');
    spoil(work, 'entry', ({ bytes, l2 }) => bytes.writeUInt32BE(0x3fff_ffff, l2 + 4));
    for (const [name, zero] of [
      ['kept', 'write -z 0 64k'],
      ['gone-to-zero', 'write -z -u 0 64k'],
    ] as const) {
      work.must('cp', 'x', name);
      work.must('qemu-io', '-f', 'qcow2', '-c', zero, name);
    }
    for (const name of ['good', 'packed'])
      work.must('qemu-img', 'convert', '-f', 'qcow2', '-O', 'qcow2', '-c', 'x', name);
    spoil(work, 'packed', ({ bytes, first }) => bytes.fill(0xff, first, first + 16));
    const ours = downfoldMany(
      work,
      lines.map(([line]) => line),
    );
    for (const [index, [line, code]] of lines.entries()) {
      expect([line, work.run('qemu-img', ...line).code]).toEqual([line, code]);
      expect([line, ours[index]?.code]).toEqual([line, code]);
    }
  });
});

/** Each line's last name but one in a directory of its own. */
function inDirectories(
  work: Bench,
  lines: readonly (readonly string[])[],
  prefix: string,
): readonly (readonly string[])[] {
  return lines.map((line, index) => {
    work.must('mkdir', '-p', `${prefix}${index}`);
    return line.map((one) => (one === 'made' ? `${prefix}${index}/made` : one));
  });
}

/** What QEMU says of an image, without what two of the same may differ in. */
function infoOf(work: Bench, name: string, line: readonly string[]): unknown {
  const format = line[line.indexOf('-f') + 1] as string;
  const text = work.must('qemu-img', 'info', '-f', format, '--output=json', name);
  return { ...JSON.parse(text), filename: '', 'actual-size': 0 };
}

describe('docs/qemu-img.md', () => {
  it('is made from the table of differences', async () => {
    const rows = [
      ['verbs', '`qemu-img`', '`downfold`', 'why'],
      ...DIFFERENCES.map(({ verbs, theirs, ours, why }) => [verbs, theirs, ours, why]),
    ];
    const widths = [0, 1, 2, 3].map((at) => Math.max(...rows.map((row) => row[at]?.length ?? 0)));
    const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
    const [head = '', ...body] = rows.map((row) =>
      line(row.map((cell, at) => cell.padEnd(widths[at] ?? 0))),
    );
    const page = [
      '# Where `downfold` differs from `qemu-img`',
      '',
      'Flags, exit codes, JSON and results are those of `qemu-img` 7.2, for all verbs that both have; `apps/cli/test/drop-in.test.ts` runs the same command',
      'lines of both on random images. These differences are on purpose (made by the tests from `apps/cli/test/differences.ts`):',
      '',
      head,
      line(widths.map((width) => '-'.repeat(width))),
      ...body,
      '',
    ].join('\n');
    await expect(page).toMatchFileSnapshot('../../../docs/qemu-img.md');
  });
});
