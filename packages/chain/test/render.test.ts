import type { FileIdentity } from '@downfold/storage';
import { byteLength } from '@downfold/units';
import { describe, expect, it } from 'vitest';
import {
  formatBytes,
  type PoolGraph,
  type PoolImage,
  renderDot,
  renderMermaid,
  renderSvg,
  renderTree,
} from '../src/index.ts';

const GIB = 2 ** 30;

function image(node: string, path: string, backingNode: string | null): PoolImage {
  const identity: FileIdentity = { device: '1', inode: node };
  return {
    node,
    path,
    format: 'qcow2',
    identity,
    geometry: {
      virtualSize: byteLength(10 * GIB),
      clusterSize: byteLength(65_536),
      allocationGranularity: byteLength(65_536),
    },
    backing: null,
    mark: null,
    fingerprint: '00000000',
    fileLength: 0,
    allocated: 1.5 * GIB,
    modified: '0',
    backingNode,
    problem: null,
  };
}

const pool: PoolGraph = {
  directories: ['/vm'],
  images: [
    image('p0', '/vm/base.qcow2', null),
    {
      ...image('p1', '/vm/mid.qcow2', 'p0'),
      mark: { state: 'invalid', job: 'j1', date: '2026-01-02T03:04:05Z' },
    },
    image('p2', '/vm/top.qcow2', 'p0'),
    image('p3', '/vm/a & <b> "c".qcow2', 'p2'),
    {
      ...image('p4', '/elsewhere/lost.qcow2', null),
      problem: { code: 'CHAIN_MISSING', message: 'gone' },
    },
  ],
  problems: [
    { path: '/vm/torn.qcow2', code: 'IMAGE_CORRUPT', message: '/vm/torn.qcow2: has no L1 table' },
    { path: '/vm/locked', code: 'STORAGE_ACCESS', message: 'access denied' },
  ],
};

describe('a pool', () => {
  it('as a tree: overlays below what backs them, bases first, problems last', () => {
    expect(renderTree(pool)).toBe(
      `base.qcow2  (qcow2, 10.0 GiB, 1.50 GiB on disk)
├── mid.qcow2  (qcow2, 10.0 GiB, 1.50 GiB on disk, INVALID since 2026-01-02T03:04:05Z)
└── top.qcow2  (qcow2, 10.0 GiB, 1.50 GiB on disk)
    └── a & <b> "c".qcow2  (qcow2, 10.0 GiB, 1.50 GiB on disk)
/elsewhere/lost.qcow2  (qcow2, 10.0 GiB, 1.50 GiB on disk, backing file: CHAIN_MISSING)
! /vm/torn.qcow2: has no L1 table
! /vm/locked: access denied
`,
    );
  });

  it('as a dot graph: an arrow from each overlay to its backing file', () => {
    expect(renderDot(pool)).toBe(
      String.raw`digraph pool {
  rankdir=BT;
  node [shape=box, fontname="sans-serif"];
  p0 [label="base.qcow2\nqcow2, 10.0 GiB"];
  p1 [label="mid.qcow2\nqcow2, 10.0 GiB, invalid", color=red, fontcolor=red];
  p1 -> p0;
  p2 [label="top.qcow2\nqcow2, 10.0 GiB"];
  p2 -> p0;
  p3 [label="a & <b> \"c\".qcow2\nqcow2, 10.0 GiB"];
  p3 -> p2;
  p4 [label="/elsewhere/lost.qcow2\nqcow2, 10.0 GiB, CHAIN_MISSING", color=red, fontcolor=red];
}
`,
    );
  });

  it('as a mermaid chart', () => {
    expect(renderMermaid(pool)).toBe(`flowchart BT
  p0["base.qcow2<br/>qcow2, 10.0 GiB"]
  p1["mid.qcow2<br/>qcow2, 10.0 GiB, invalid"]
  p1 --> p0
  style p1 stroke:#c00,color:#c00
  p2["top.qcow2<br/>qcow2, 10.0 GiB"]
  p2 --> p0
  p3["a #amp; #lt;b> #quot;c#quot;.qcow2<br/>qcow2, 10.0 GiB"]
  p3 --> p2
  p4["/elsewhere/lost.qcow2<br/>qcow2, 10.0 GiB, CHAIN_MISSING"]
  style p4 stroke:#c00,color:#c00
`);
  });

  it('as an SVG: a box an image, overlays to the right, names escaped', () => {
    const svg = renderSvg(pool);
    const boxes = [...svg.matchAll(/<rect x="(\d+)" y="(\d+)"[^>]*stroke="([^"]+)"/g)];
    expect(boxes.map(([, x, y, stroke]) => `${x},${y} ${stroke}`)).toEqual([
      '20,20 #333',
      '280,20 #c00',
      '280,82 #333',
      '540,82 #333',
      '20,144 #c00',
    ]);
    const names = [...svg.matchAll(/font-weight="bold"[^>]*>([^<]+)</g)].map(([, name]) => name);
    expect(names).toContain('a &amp; &lt;b&gt; &quot;c&quot;.qcow2');
    expect(svg.match(/<line /g)).toHaveLength(3);
    expect(svg).toMatch(/^<svg xmlns="[^"]+" width="800" height="230".*<\/svg>\n$/);
  });
});

describe('unusual pools', () => {
  it('an empty one says so', () => {
    const empty: PoolGraph = { directories: ['/vm'], images: [], problems: [] };
    expect(renderTree(empty)).toBe('No images in /vm\n');
    expect(renderSvg(empty)).toContain('</svg>');
  });

  it('a loop is drawn once around', () => {
    const loop: PoolGraph = {
      directories: ['/vm'],
      images: [image('p0', '/vm/a', 'p1'), image('p1', '/vm/b', 'p0')],
      problems: [],
    };
    const lines = renderTree(loop).split('\n');
    expect(lines.map((line) => line.replace(/ {2}\(.*/, ''))).toEqual([
      'a',
      '└── b',
      '    └── a',
      '',
    ]);
    expect(renderSvg(loop).match(/<rect /g)).toHaveLength(2);
    expect(renderDot(loop)).toContain('p0 -> p1;');
  });

  it('names are whole paths when several directories were scanned', () => {
    const tree = renderTree({ ...pool, directories: ['/vm', '/elsewhere'] });
    expect(tree).toContain('/vm/base.qcow2  (');
  });

  it('control characters in names reach neither terminal nor file', () => {
    const hostile: PoolGraph = {
      directories: ['/vm'],
      images: [image('p0', '/vm/\x1b[2J\nroot# \x9b', null)],
      problems: [{ path: '/vm/\x07', code: 'IMAGE_CORRUPT', message: 'torn' }],
    };
    for (const render of [renderTree, renderDot, renderMermaid, renderSvg]) {
      const drawn = render(hostile).replaceAll('\n', '');
      // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
      expect(drawn).not.toMatch(/[\u0000-\u001f\u007f-\u009f]/);
      expect(drawn).toContain('x1b[2J');
    }
    expect(renderTree(hostile)).toMatch(/^\\x1b\[2J\\x0aroot# \\x9b /);
  });

  it('a long name is shortened in its box, and whole in its tooltip', () => {
    const name = `${'x'.repeat(40)}-2026.qcow2`;
    const svg = renderSvg({
      directories: ['/vm'],
      images: [image('p0', `/vm/${name}`, null)],
      problems: [],
    });
    expect(svg).toContain('>xxxxxxxxxxxxx…xx-2026.qcow2<title>');
    expect(svg).toContain(`<title>/vm/${name}</title>`);
  });
});

it.each([
  [0, '0 B'],
  [1023, '1023 B'],
  [1024, '1.00 KiB'],
  [1536 * 1024, '1.50 MiB'],
  [10 * GIB, '10.0 GiB'],
  [123 * GIB, '123 GiB'],
  [2 ** 53, '8.00 PiB'],
])('%i bytes are %s', (bytes, text) => {
  expect(formatBytes(bytes)).toBe(text);
});
