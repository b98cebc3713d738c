import { StorageError } from '@downfold/storage';
import { memoryBackend } from '@downfold/storage-memory';
import { describe, expect, it } from 'vitest';
import {
  dependentsOf,
  imageOf,
  openChain,
  openLayer,
  overlaysOf,
  type PoolGraph,
  type PoolImage,
  scanPool,
  strandedBy,
} from '../src/index.ts';
import {
  counting,
  diskOf,
  environmentOn,
  expectRefusal,
  over,
  plain,
  withLinks,
} from './support.ts';
import type { ToyLayer } from './toy-format.ts';

/** Scans `/p` of a disk with these layers. */
async function graphOf(layers: Readonly<Record<string, ToyLayer>>): Promise<PoolGraph> {
  return scanPool(['/p'], environmentOn(await diskOf(layers)));
}

const at = (graph: PoolGraph, path: string): PoolImage => {
  const image = graph.images.find((one) => one.path === path);
  if (image === undefined) throw new Error(`no image ${path}`);
  return image;
};
const pathsOf = (images: readonly PoolImage[]): readonly string[] =>
  images.map(({ path }) => path).sort();
/** Who would be stranded by committing the last of these paths into the first. */
const strandedOf = (graph: PoolGraph, ...subchain: readonly string[]): readonly string[] =>
  pathsOf(
    strandedBy(
      graph,
      subchain.map((path) => at(graph, path).identity),
    ),
  );

/** base <- mid <- top <- active, and an overlay on each of them that is not in the chain. */
const crowd: Readonly<Record<string, ToyLayer>> = {
  '/p/base': plain,
  '/p/mid': over('base'),
  '/p/top': over('mid'),
  '/p/active': over('top'),
  '/p/on-base': over('base'),
  '/p/on-mid': over('mid'),
  '/p/on-top': over('top'),
  '/p/on-on-mid': over('on-mid'),
};

describe('who depends on whom', () => {
  it('finds a backing file beside a link, where it is not beside the image', async () => {
    const disk = await diskOf({
      '/p/base': plain,
      '/p/top': over('base'),
      '/q/side': over('base'),
    });
    const backend = withLinks(disk, { '/p/side': '/q/side' });
    const graph = await scanPool(['/p'], environmentOn(disk, { backend }), { recursive: false });
    expect(strandedOf(graph, '/p/base', '/p/top')).toEqual(['/q/side']);
    expect(at(graph, '/q/side').problem).toBeNull();
  });

  it('finds overlays, and all that read through an image however far above', async () => {
    const graph = await graphOf(crowd);
    expect(pathsOf(overlaysOf(graph, at(graph, '/p/mid')))).toEqual(['/p/on-mid', '/p/top']);
    expect(pathsOf(dependentsOf(graph, at(graph, '/p/mid')))).toEqual([
      '/p/active',
      '/p/on-mid',
      '/p/on-on-mid',
      '/p/on-top',
      '/p/top',
    ]);
    expect(dependentsOf(graph, at(graph, '/p/active'))).toEqual([]);
  });

  it('strands overlays of base and of intermediates with all above them; never those of top', async () => {
    const graph = await graphOf(crowd);
    expect(strandedOf(graph, '/p/base', '/p/mid', '/p/top')).toEqual([
      '/p/on-base',
      '/p/on-mid',
      '/p/on-on-mid',
    ]);
    expect(strandedOf(graph, '/p/mid', '/p/top')).toEqual(['/p/on-mid', '/p/on-on-mid']);
    expect(strandedOf(graph, '/p/top', '/p/active')).toEqual(['/p/on-top']);
  });

  it('strands an overlay whose reference has no format: it reads from base all the same', async () => {
    const graph = await graphOf({
      '/p/base': plain,
      '/p/top': over('base'),
      '/p/old': over('base', null),
    });
    expect(strandedOf(graph, '/p/base', '/p/top')).toEqual(['/p/old']);
    expect(at(graph, '/p/old').problem?.code).toBe('CHAIN_NO_FORMAT');
  });

  it('strands an overlay that names base by another of its names', async () => {
    const disk = await diskOf({
      '/p/base': plain,
      '/p/top': over('base'),
      '/p/other': over('hard'),
    });
    disk.names.set('/p/hard', disk.inodeOf('/p/base'));
    const graph = await scanPool(['/p'], environmentOn(disk));
    expect(strandedOf(graph, '/p/base', '/p/top')).toEqual(['/p/other']);
    expect(pathsOf(graph.images)).toEqual(['/p/base', '/p/other', '/p/top']);
  });

  it('strands an overlay that only a link in the pool leads to', async () => {
    const disk = await diskOf({
      '/p/base': plain,
      '/p/top': over('base'),
      '/far/x': over('/p/base'),
    });
    const backend = withLinks(disk, { '/p/link': '/far/x', '/p/dangling': '/p/gone' });
    const graph = await scanPool(['/p'], environmentOn(disk, { backend }));
    expect(strandedOf(graph, '/p/base', '/p/top')).toEqual(['/far/x']);
    expect(graph.problems).toEqual([]);
  });

  it('comes to an end in loops', async () => {
    const graph = await graphOf({ '/p/a': over('b'), '/p/b': over('a'), '/p/c': over('a') });
    expect(pathsOf(dependentsOf(graph, at(graph, '/p/a')))).toEqual(['/p/b', '/p/c']);
    expect(strandedOf(graph, '/p/a', '/p/b')).toEqual(['/p/c']);
  });

  it('knows nothing of an image that is not in the pool', async () => {
    const graph = await graphOf({ '/p/a': plain });
    const stranger = { device: 'memory', inode: '99' };
    expect(imageOf(graph, stranger)).toBeUndefined();
    expect(strandedBy(graph, [stranger, at(graph, '/p/a').identity])).toEqual([]);
  });
});

describe('scanPool', () => {
  it('lists images by path, whatever else lies there, each with its facts', async () => {
    const disk = await diskOf({ '/p/b': plain, '/p/a': over('b'), '/p/sub/c': over('../b') });
    await using text = await memoryBackend(disk).create('/p/notes.txt', { secret: false });
    const graph = await scanPool(['/p'], environmentOn(disk));
    expect(pathsOf(graph.images)).toEqual(['/p/a', '/p/b', '/p/sub/c']);
    expect(at(graph, '/p/sub/c').backingNode).toBe(at(graph, '/p/b').node);
    expect(at(graph, '/p/b')).toMatchObject({ format: 'toy', backing: null, problem: null });
    expect(graph).toMatchObject({ directories: ['/p'], problems: [] });
    expect(JSON.parse(JSON.stringify(graph))).toEqual(graph);
    expect(text.label).toBe('/p/notes.txt');
  });

  it('stays out of subdirectories when told to', async () => {
    const disk = await diskOf({ '/p/a': plain, '/p/sub/c': plain });
    const graph = await scanPool(['/p'], environmentOn(disk), { recursive: false });
    expect(pathsOf(graph.images)).toEqual(['/p/a']);
  });

  it('scans a directory once, however often and by whatever link it is named', async () => {
    const disk = await diskOf({ '/p/a': plain });
    const backend = withLinks(disk, { '/door': '/p' });
    const graph = await scanPool(['/p', '/door', '/p'], environmentOn(disk, { backend }));
    expect(graph.directories).toEqual(['/p']);
    expect(pathsOf(graph.images)).toEqual(['/p/a']);
  });

  it('takes in a backing file that nothing recognises, by what its overlay says', async () => {
    const disk = await diskOf({ '/p/a': over('disk.img', 'flat') });
    await using file = await memoryBackend(disk).create('/p/disk.img', { secret: false });
    const graph = await scanPool(['/p'], environmentOn(disk));
    expect(at(graph, '/p/disk.img').format).toBe('flat');
    expect(at(graph, '/p/a').backingNode).toBe(at(graph, '/p/disk.img').node);
    expect(file.label).toBe('/p/disk.img');
  });

  it('believes an overlay and not the bytes: a guest may write a header into its raw disk', async () => {
    // named so that it is looked at before its overlay
    const graph = await graphOf({
      '/p/a.img': over('victim'),
      '/p/b': over('a.img', 'flat'),
      '/p/victim': plain,
    });
    expect(at(graph, '/p/a.img')).toMatchObject({
      format: 'flat',
      backing: null,
      backingNode: null,
    });
    expect(at(graph, '/p/b').backingNode).toBe(at(graph, '/p/a.img').node);
    expect(overlaysOf(graph, at(graph, '/p/victim'))).toEqual([]);
    expect(graph.images).toHaveLength(3);
  });

  it('lists marked images with their mark', async () => {
    const mark = { state: 'invalid', job: 'j1', date: '2026-01-02T03:04:05Z' } as const;
    const graph = await graphOf({ '/p/a': { ...plain, mark }, '/p/b': over('a') });
    expect(at(graph, '/p/a').mark).toEqual(mark);
    expect(at(graph, '/p/b').problem).toBeNull();
  });

  it.each([
    ['gone', 'CHAIN_MISSING'],
    ['../out', 'CHAIN_OUTSIDE_ROOTS'],
    ['json:{}', 'CHAIN_FORBIDDEN_NAME'],
  ])('a backing file %s is the problem %s of its overlay', async (name, code) => {
    const graph = await graphOf({ '/p/a': over(name), '/out': plain });
    expect(at(graph, '/p/a')).toMatchObject({ backingNode: null, problem: { code } });
    expect(graph.problems).toEqual([]);
  });

  it('files that cannot be read are problems, each once, and leave nothing open', async () => {
    const disk = await diskOf({
      '/p/a': over('d'),
      '/p/b': over('d'),
      '/p/c': over('torn'),
      '/p/e': over('a', 'vmdk'),
    });
    disk.makeDirectory('/p/d');
    await using file = await memoryBackend(disk).create('/p/torn', { secret: false });
    const counter = counting(memoryBackend(disk));
    const graph = await scanPool(['/p'], environmentOn(disk, { backend: counter.backend }));
    expect(graph.problems.map(({ path, code }) => `${path} ${code}`).sort()).toEqual([
      '/p/a CHAIN_UNKNOWN_FORMAT',
      '/p/d STORAGE_NOT_REGULAR',
      '/p/torn IMAGE_NOT_RECOGNISED',
    ]);
    expect(pathsOf(graph.images)).toEqual(['/p/a', '/p/b', '/p/c', '/p/e']);
    expect(counter.open).toBe(0);
    expect(file.label).toBe('/p/torn');
  });

  it('a directory that cannot be listed is a problem, not an exception', async () => {
    const disk = await diskOf({ '/p/a': plain, '/p/locked/b': plain });
    const memory = memoryBackend(disk);
    const list = async (directory: string): ReturnType<typeof memory.list> => {
      if (directory !== '/p/locked') return memory.list(directory);
      throw new StorageError('STORAGE_ACCESS', `${directory}: access denied`);
    };
    const graph = await scanPool(['/p'], environmentOn(disk, { backend: { ...memory, list } }));
    expect(pathsOf(graph.images)).toEqual(['/p/a']);
    expect(graph.problems).toEqual([
      { path: '/p/locked', code: 'STORAGE_ACCESS', message: '/p/locked: access denied' },
    ]);
  });

  it('stops when its signal is aborted', async () => {
    const environment = environmentOn(await diskOf({ '/p/a': plain }));
    const signal = AbortSignal.abort(new Error('enough'));
    await expect(scanPool(['/p'], { ...environment, signal })).rejects.toThrow('enough');
  });
});

describe('openLayer', () => {
  it('opens what was found before, and refuses another file that has its name now', async () => {
    const disk = await diskOf({ '/p/a': plain, '/p/b': plain });
    const counter = counting(memoryBackend(disk));
    const environment = environmentOn(disk, { backend: counter.backend });
    await using chain = await openChain('/p/a', 'toy', environment);
    const facts = chain.layers[0]?.facts;
    if (facts === undefined) throw new Error('no layer');
    const again = await openLayer(facts, 'read', environment);
    expect(again.facts).toBe(facts);
    await again.image[Symbol.asyncDispose]();
    disk.names.set('/p/a', disk.inodeOf('/p/b'));
    await expectRefusal(openLayer(facts, 'read', environment), 'CHAIN_MISSING', '/p/a');
    expect(counter.open).toBe(1);
  });
});
