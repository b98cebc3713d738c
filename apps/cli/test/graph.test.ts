import { describe, expect, it } from 'vitest';
import { type Bench, bench, makeChain, makeImage } from './support.ts';

async function pool(): Promise<Bench> {
  const work = bench();
  await makeChain(work);
  await makeImage(work, 'sibling.qcow2', { layer: 9, held: [], mebibytes: 8, below: 'base.qcow2' });
  work.must('sh', '-c', 'head -c 100 base.qcow2 > torn.qcow2');
  return work;
}

describe('graph', () => {
  it('draws a tree, bases first, and names what it could not read', async () => {
    using work = await pool();
    const { code, stdout } = work.downfold('graph', '.');
    expect(code).toBe(0);
    expect(stdout.replaceAll(/ {2}\(.*/g, '').split('\n')).toEqual([
      'base.qcow2',
      '├── mid.qcow2',
      '│   └── top.qcow2',
      '│       └── active.qcow2',
      '└── sibling.qcow2',
      expect.stringMatching(/^! .*torn\.qcow2: /),
      '',
    ]);
  });

  it('takes a file for its directory', async () => {
    using work = await pool();
    expect(work.downfold('graph', 'mid.qcow2').stdout).toBe(work.downfold('graph', '.').stdout);
  });

  it.each([
    ['dot', /^digraph pool \{\n.*p\d -> p\d;\n.*\}\n$/s],
    ['mermaid', /^flowchart BT\n.*p\d --> p\d\n/s],
    ['svg', /^<svg .*<\/svg>\n$/s],
  ])('draws it as %s', async (form, shape) => {
    using work = await pool();
    const { code, stdout } = work.downfold('graph', '--output', form, '.');
    expect(code).toBe(0);
    expect(stdout).toMatch(shape);
    for (const name of ['base', 'mid', 'top', 'active', 'sibling'])
      expect(stdout).toContain(`${name}.qcow2`);
  });

  it('gives it as JSON', async () => {
    using work = await pool();
    const graph = work.json<{
      images: { path: string; node: string; backingNode: string | null }[];
    }>('graph', '.');
    const byNode = new Map(graph.images.map(({ node, path }) => [node, path]));
    const edges = graph.images.map(({ path, backingNode }) => [
      path,
      byNode.get(backingNode ?? ''),
    ]);
    expect(edges).toContainEqual([work.file('sibling.qcow2'), work.file('base.qcow2')]);
    expect(graph).toMatchObject({
      directories: [work.path],
      problems: [{ path: work.file('torn.qcow2') }],
    });
  });

  it('says what a commit left invalid', async () => {
    using work = await pool();
    work.must('rm', 'sibling.qcow2', 'torn.qcow2');
    expect(
      work.downfold('commit', '-q', '-b', 'base.qcow2', '--top', 'top.qcow2', 'active.qcow2').code,
    ).toBe(0);
    expect(work.downfold('graph', '.').stdout).toMatch(/mid\.qcow2 {2}\(.*INVALID since 20/);
  });

  it('of a directory without images says so; of one that is not there it fails', () => {
    using work = bench();
    expect(work.downfold('graph', '.').stdout).toBe(`No images in ${work.path}\n`);
    const { code, stderr } = work.downfold('graph', 'gone');
    expect(code).toBe(1);
    expect(stderr).toMatch(/^downfold: Could not draw the graph of 'gone': .*no such file.*\n$/);
  });
});
