import { memoryBackend } from '@downfold/storage-memory';
import { describe, expect, it } from 'vitest';
import { type OpenChain, openChain, resolveBacking } from '../src/index.ts';
import {
  counting,
  diskOf,
  environmentOn,
  expectRefusal,
  over,
  plain,
  withLinks,
} from './support.ts';
import { type ToyLayer, toyFormat } from './toy-format.ts';

const OVERLAY = '/pool/active';

describe('a name inside an image', () => {
  const disk = diskOf({
    '/pool/base': plain,
    '/pool/sub/base': plain,
    '/pool/json:1': plain,
    '/pool2/base': plain,
    '/secret': plain,
  });
  const resolve = async (name: string, roots: readonly string[] = ['/pool']): Promise<string> => {
    const backend = memoryBackend(await disk);
    return (await resolveBacking({ name, format: 'toy' }, OVERLAY, roots, backend)).path;
  };

  it.each([
    ['base', '/pool/base', 'is relative to the directory of its image'],
    ['./base', '/pool/base', 'may start with a dot'],
    ['sub/../base', '/pool/base', 'may go up and down inside the roots'],
    ['sub/base', '/pool/sub/base', 'may lie deeper'],
    ['/pool/base', '/pool/base', 'may be absolute'],
    ['file:base', '/pool/base', 'loses the prefix that means a plain file'],
    ['file:/pool/base', '/pool/base', 'loses it before an absolute name too'],
    ['file:///pool/base', '/pool/base', 'loses it from a URL too'],
    ['./json:1', '/pool/json:1', 'may have a colon behind a slash'],
  ])('%s is %s: it %s', async (name, path) => {
    expect(await resolve(name)).toBe(path);
  });

  it.each([
    ['../secret', 'climbs out of the roots'],
    ['sub/../../secret', 'climbs out later'],
    ['/secret', 'is absolute and outside'],
    ['../pool2/base', 'only looks like a root'],
    ['file:../secret', 'climbs out behind a prefix'],
  ])('%s is refused: it %s', async (name) => {
    await expectRefusal(resolve(name), 'CHAIN_OUTSIDE_ROOTS', OVERLAY, '/', 'allow its directory');
  });

  it.each([
    ['json:{"driver":"file","filename":"/secret"}'],
    ['json:{}'],
    ['nbd://localhost/disk'],
    ['nbd:unix:/run/nbd.sock'],
    ['http://localhost/disk'],
    ['ssh:host'],
    ['fat:rw:/pool'],
    ['file:json:{}'],
    ['file:file:base'],
    [':base'],
    [''],
    ['file:'],
    ['ba\0se'],
    ['base\n'],
    ['\x1b[2Jbase'],
    ['base\x7f'],
  ])('%j is refused, and nothing is looked up', async (name) => {
    const untouched = new Proxy(memoryBackend(), {
      get: () => {
        throw new Error('the backend was asked');
      },
    });
    await expectRefusal(
      resolveBacking({ name, format: 'toy' }, OVERLAY, ['/pool'], untouched),
      'CHAIN_FORBIDDEN_NAME',
      OVERLAY,
    );
  });

  it('without a format is refused, with the command that repairs it', async () => {
    const reference = { name: 'base', format: null };
    await expectRefusal(
      resolveBacking(reference, OVERLAY, ['/pool'], memoryBackend(await disk)),
      'CHAIN_NO_FORMAT',
      `qemu-img rebase -u -F FORMAT -b 'base' '${OVERLAY}'`,
    );
  });

  it('that leads nowhere is refused, and says where it looked', async () => {
    await expectRefusal(resolve('gone'), 'CHAIN_MISSING', OVERLAY, "'gone'", '/pool/gone');
  });

  it('is judged by where its links lead', async () => {
    const backend = withLinks(await disk, {
      '/pool/out': '/secret',
      '/pool/in': '/pool/sub/base',
      '/pool/door': '/pool2',
      '/door': '/pool',
    });
    const follow = (name: string): Promise<{ path: string }> =>
      resolveBacking({ name, format: 'toy' }, OVERLAY, ['/pool'], backend);
    expect((await follow('in')).path).toBe('/pool/sub/base');
    expect((await follow('/door/base')).path).toBe('/pool/base');
    await expectRefusal(follow('out'), 'CHAIN_OUTSIDE_ROOTS', '/secret');
    await expectRefusal(follow('door/base'), 'CHAIN_OUTSIDE_ROOTS', '/pool2/base');
  });
});

describe('openChain', () => {
  it('opens bottom first, by the formats that references name, and never guesses', async () => {
    const counters = { recognised: 0 };
    const disk = await diskOf({ '/p/a': plain, '/p/b': over('a', 'flat'), '/p/c': over('b') });
    const environment = environmentOn(disk);
    const formats = [toyFormat(counters), ...environment.formats.slice(1)];
    await using chain = await openChain('/p/c', 'toy', { ...environment, formats });
    expect(chain.layers.map(({ facts }) => [facts.path, facts.format])).toEqual([
      ['/p/a', 'flat'],
      ['/p/b', 'toy'],
      ['/p/c', 'toy'],
    ]);
    expect(counters.recognised).toBe(0);
  });

  it('refuses a format that was not passed in, and names those that were', async () => {
    const disk = await diskOf({ '/p/a': plain, '/p/b': over('a', 'vmdk') });
    await expectRefusal(
      openChain('/p/b', 'toy', environmentOn(disk)),
      'CHAIN_UNKNOWN_FORMAT',
      "'vmdk'",
      'toy, flat',
    );
  });

  it('allows by default the directory in which the image really lies, and no other', async () => {
    const disk = await diskOf({ '/p/a': plain, '/p/b': over('a'), '/other/c': over('/p/b') });
    const backend = withLinks(disk, { '/home/link': '/p/b' });
    await using chain = await openChain('/home/link', 'toy', environmentOn(disk, { backend }));
    expect(chain.layers.map(({ facts }) => facts.path)).toEqual(['/p/a', '/p/b']);
    await expectRefusal(
      openChain('/other/c', 'toy', environmentOn(disk)),
      'CHAIN_OUTSIDE_ROOTS',
      '/p/b',
    );
    const roots = ['/other', '/p'];
    await using allowed = await openChain(
      '/other/c',
      'toy',
      environmentOn(disk, { policy: { roots } }),
    );
    expect(allowed.layers).toHaveLength(3);
  });

  it.each([
    ['itself', { '/p/a': over('a') }, '/p/a'],
    ['itself by another of its names', { '/p/a': over('hard') }, '/p/hard'],
    ['itself by a link', { '/p/a': over('soft') }, '/p/a'],
    ['itself over two others', { '/p/a': over('b'), '/p/b': over('c'), '/p/c': over('a') }, '/p/a'],
  ])('refuses an image that backs %s, by identity and not by name', async (_, layers, path) => {
    const disk = await diskOf(layers);
    disk.names.set('/p/hard', disk.inodeOf('/p/a'));
    const backend = withLinks(disk, { '/p/soft': '/p/a' });
    const opening = openChain('/p/a', 'toy', environmentOn(disk, { backend }));
    await expect(opening).rejects.toMatchObject({
      code: 'CHAIN_LOOP',
      details: { image: path, seenAs: '/p/a' },
    });
  });

  it('refuses an image named by a link where QEMU would find another backing file beside the link', async () => {
    const disk = await diskOf({
      '/p/a': plain,
      '/p/b': over('a'),
      '/p/c': over('b'),
      '/links/a': plain,
    });
    const open = (links: Readonly<Record<string, string>>, path: string): Promise<OpenChain> =>
      openChain(path, 'toy', environmentOn(disk, { backend: withLinks(disk, links) }));
    await expectRefusal(
      open({ '/links/b': '/p/b' }, '/links/b'),
      'CHAIN_AMBIGUOUS',
      '/links/a',
      '/p/a',
    );
    // a layer further down: QEMU looks for it beside the link, and for its own backing file there too
    await expectRefusal(
      open({ '/links/b': '/p/b', '/links/c': '/p/c' }, '/links/c'),
      'CHAIN_AMBIGUOUS',
      '/links/a',
    );
    await using same = await open({ '/q/b': '/p/b', '/q/a': '/p/a' }, '/q/b');
    expect(same.layers.map(({ facts }) => facts.path)).toEqual(['/p/a', '/p/b']);
  });

  it.each([
    [undefined, 64],
    [3, 3],
    [5000, 1024],
  ])('with a depth of %s allows %i layers and not one more', async (depth, most) => {
    const layers: Record<string, ToyLayer> = {};
    for (let n = 0; n <= most; n++) layers[`/p/${n}`] = n === 0 ? plain : over(`${n - 1}`);
    const disk = await diskOf(layers);
    const environment = environmentOn(disk, { policy: depth === undefined ? {} : { depth } });
    await using chain = await openChain(`/p/${most - 1}`, 'toy', environment);
    expect(chain.layers).toHaveLength(most);
    await expectRefusal(openChain(`/p/${most}`, 'toy', environment), 'CHAIN_TOO_DEEP', `${most}`);
  });

  it('refuses a directory as backing file', async () => {
    const disk = await diskOf({ '/p/a': over('d') });
    disk.makeDirectory('/p/d');
    await expectRefusal(
      openChain('/p/a', 'toy', environmentOn(disk)),
      'STORAGE_NOT_REGULAR',
      '/p/d',
    );
  });

  it('refuses a marked image, unless that is allowed', async () => {
    const mark = { state: 'invalid', job: 'j1', date: '2026-01-02T03:04:05Z' } as const;
    const disk = await diskOf({ '/p/a': { ...plain, mark }, '/p/b': over('a') });
    await expectRefusal(
      openChain('/p/b', 'toy', environmentOn(disk)),
      'CHAIN_INVALID_IMAGE',
      '/p/a',
      'invalid',
      'j1',
      mark.date,
    );
    const environment = environmentOn(disk, { policy: { allowMarked: true } });
    await using chain = await openChain('/p/b', 'toy', environment);
    expect(chain.layers[0]?.facts.mark).toEqual(mark);
  });

  it('leaves nothing open, neither after a failure nor after closing', async () => {
    const disk = await diskOf({
      '/p/a': over('gone'),
      '/p/b': over('a'),
      '/p/c': plain,
      '/p/d': over('c'),
    });
    const counter = counting(memoryBackend(disk));
    const environment = environmentOn(disk, { backend: counter.backend });
    await expectRefusal(openChain('/p/b', 'toy', environment), 'CHAIN_MISSING');
    expect(counter.open).toBe(0);
    {
      await using chain = await openChain('/p/d', 'toy', environment);
      expect(counter.open).toBe(chain.layers.length);
    }
    expect(counter.open).toBe(0);
  });

  it('stops when its signal is aborted', async () => {
    const disk = await diskOf({ '/p/a': plain });
    const signal = AbortSignal.abort(new Error('enough'));
    await expect(openChain('/p/a', 'toy', { ...environmentOn(disk), signal })).rejects.toThrow(
      'enough',
    );
  });
});
