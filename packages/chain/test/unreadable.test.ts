import { ImageError, type ImageFormat } from '@downfold/image';
import { type StorageBackend, StorageError } from '@downfold/storage';
import { type MemoryDisk, memoryBackend } from '@downfold/storage-memory';
import { hostOffset } from '@downfold/units';
import { describe, expect, it } from 'vitest';
import { type ChainEnvironment, scanPool, strandedBy, unreadableIn } from '../src/index.ts';
import { diskOf, environmentOn, over, plain, withLinks } from './support.ts';
import { flatFormat, type ToyLayer } from './toy-format.ts';

/** Recognised by its magic, and never whole. */
const torn: ImageFormat = {
  ...flatFormat,
  name: 'torn',
  recognises: (head) => new TextDecoder().decode(head).startsWith('TORN'),
  open: async ({ label }) => {
    throw new ImageError('IMAGE_CORRUPT', `${label}: is torn`);
  },
};

function around(disk: MemoryDisk, backend = memoryBackend(disk)): ChainEnvironment {
  const environment = environmentOn(disk, { backend });
  return { ...environment, formats: [...environment.formats, torn] };
}

/** What a scan of `/p` says of the pool: `path code`. */
async function unreadable(environment: ChainEnvironment): Promise<readonly string[]> {
  const graph = await scanPool(['/p'], environment, { recursive: false });
  return unreadableIn(graph, environment.formats).map(({ path, code }) => `${path} ${code}`);
}

async function put(disk: MemoryDisk, path: string, text: string): Promise<void> {
  await using file = await memoryBackend(disk).create(path, { secret: false });
  await file.write(hostOffset(0), new TextEncoder().encode(text));
}

/** A backend of which one call fails for one path. */
function denying(
  disk: MemoryDisk,
  call: 'open' | 'realPath' | 'list',
  denied: string,
): StorageBackend {
  const backend = memoryBackend(disk);
  const guarded = (path: string, ...more: unknown[]): Promise<unknown> => {
    if (path === denied) throw new StorageError('STORAGE_ACCESS', `${path}: access denied`);
    return (backend[call] as (...given: unknown[]) => Promise<unknown>)(path, ...more);
  };
  return { ...backend, [call]: async (...given: [string]) => guarded(...given) };
}

const chain: Readonly<Record<string, ToyLayer>> = { '/p/base': plain, '/p/top': over('base') };

describe('what may hide an image that depends on another', () => {
  it('a link beside which lies another backing file than beside its image', async () => {
    const disk = await diskOf({ ...chain, '/q/base': plain, '/q/side': over('base') });
    const links = (to: Readonly<Record<string, string>>): ChainEnvironment =>
      around(disk, withLinks(disk, to));
    expect(await unreadable(links({ '/p/side': '/q/side' }))).toEqual(['/q/side CHAIN_AMBIGUOUS']);
    // one file by two names
    expect(await unreadable(links({ '/p/s/top': '/p/top', '/p/s/base': '/p/base' }))).toEqual([]);
  });

  it('an image that an overlay takes for another format, whatever it reads through as what it is', async () => {
    const flat = over('side', 'flat');
    const pool = { ...chain, '/p/side': over('base') };
    expect(await unreadable(around(await diskOf({ ...pool, '/p/z': flat })))).toEqual([
      '/p/side CHAIN_TWO_FORMATS',
    ]);
    // somebody else knows better
    expect(
      await unreadable(around(await diskOf({ ...pool, '/p/y': over('side'), '/p/z': flat }))),
    ).toEqual([]);
  });

  it('a file that a format recognises and cannot read', async () => {
    const disk = await diskOf(chain);
    await put(disk, '/p/broken', 'TORN');
    expect(await unreadable(around(disk))).toEqual(['/p/broken IMAGE_CORRUPT']);
  });

  it('a file that may not be opened, whatever it is; a directory that may not be listed', async () => {
    const disk = await diskOf({ ...chain, '/p/secret': over('base') });
    const backend = denying(disk, 'open', '/p/secret');
    expect(await unreadable(around(disk, backend))).toEqual(['/p/secret STORAGE_ACCESS']);
    const blind = denying(disk, 'list', '/p');
    expect(await unreadable(around(disk, blind))).toEqual(['/p STORAGE_ACCESS']);
  });

  it.each([
    ['json:{"driver":"toy","file":{"filename":"base"}}', 'CHAIN_FORBIDDEN_NAME'],
    ['nbd:localhost:10809', 'CHAIN_FORBIDDEN_NAME', 'flat'],
    ['', 'CHAIN_FORBIDDEN_NAME'],
    ['/far/overlay', 'CHAIN_OUTSIDE_ROOTS'],
  ])('an image whose backing file is %j', async (name, code, format = 'toy') => {
    const disk = await diskOf({
      ...chain,
      '/p/odd': over(name, format),
      '/far/overlay': over('/p/base'),
    });
    expect(await unreadable(around(disk))).toEqual([`/p/odd ${code}`]);
  });

  it('an image whose backing file cannot be located', async () => {
    const disk = await diskOf({ ...chain, '/p/odd': over('/locked/x') });
    const backend = denying(disk, 'realPath', '/locked/x');
    expect(await unreadable(around(disk, backend))).toEqual(['/p/odd STORAGE_ACCESS']);
  });

  it('a backing file in a format that is not known here', async () => {
    const disk = await diskOf({ ...chain, '/p/odd': over('disk.qed', 'qed') });
    await put(disk, '/p/disk.qed', 'QED');
    expect(await unreadable(around(disk))).toEqual([
      '/p/disk.qed IMAGE_UNSUPPORTED',
      '/p/disk.qed CHAIN_UNKNOWN_FORMAT',
    ]);
  });

  it('an image of a format that nobody reads here, and that may read through any other', async () => {
    const disk = await diskOf(chain);
    await put(disk, '/p/other', 'QED');
    expect(await unreadable(around(disk))).toEqual(['/p/other IMAGE_UNSUPPORTED']);
    await put(disk, '/p/text', 'QEDX');
    expect(await unreadable(around(disk))).toEqual(['/p/other IMAGE_UNSUPPORTED']);
  });

  it('a marked image with an image above it that is not', async () => {
    const mark = { state: 'invalid', job: 'j1', date: '2026-01-02T03:04:05Z' } as const;
    const lost = { ...over('json:{}'), mark };
    const alone = await diskOf({ ...chain, '/p/lost': lost });
    expect(await unreadable(around(alone))).toEqual([]);
    const below = await diskOf({ ...chain, '/p/lost': lost, '/p/above': over('lost') });
    expect(await unreadable(around(below))).toEqual(['/p/lost CHAIN_FORBIDDEN_NAME']);
  });
});

describe('what hides nothing', () => {
  it.each([
    ['a text', { text: 'hello' }],
    ['an empty file', { text: '' }],
    ['an image alone', { layer: plain }],
    ['an image on a file that is gone', { layer: over('gone') }],
    ['an image on a directory', { layer: over('d') }],
    ['an image on a text', { layer: over('notes') }],
    ['an image whose reference has no format', { layer: over('top', null) }],
    [
      'an image on a raw disk elsewhere, which reads through nothing',
      { layer: over('/far/raw', 'flat') },
    ],
    ['an image that names base by an unknown format', { layer: over('base', 'qed') }],
  ] as readonly [string, { text?: string; layer?: ToyLayer }][])(
    '%s',
    async (_, { text, layer }) => {
      const disk = await diskOf({
        ...chain,
        '/far/raw': plain,
        ...(layer === undefined ? {} : { '/p/odd': layer }),
      });
      disk.makeDirectory('/p/d');
      await put(disk, '/p/notes', 'some notes');
      if (text !== undefined) await put(disk, '/p/odd', text);
      expect(await unreadable(around(disk))).toEqual([]);
    },
  );

  it('an empty file is not even opened', async () => {
    const disk = await diskOf(chain);
    await put(disk, '/p/empty', '');
    expect(await unreadable(around(disk, denying(disk, 'open', '/p/empty')))).toEqual([]);
  });
});

it('an image on another name of base, outside the roots, is known to depend on base; that name is not opened', async () => {
  const disk = await diskOf({ ...chain, '/p/odd': over('/far/hard') });
  disk.makeDirectory('/far');
  disk.names.set('/far/hard', disk.inodeOf('/p/base'));
  const environment = around(disk, denying(disk, 'open', '/far/hard'));
  const graph = await scanPool(['/p'], environment);
  const identities = ['/p/base', '/p/top'].map(
    (path) => graph.images.find((one) => one.path === path)?.identity as never,
  );
  expect(strandedBy(graph, identities).map(({ path }) => path)).toEqual(['/p/odd']);
  expect(graph.images.find(({ path }) => path === '/p/odd')?.problem?.code).toBe(
    'CHAIN_OUTSIDE_ROOTS',
  );
  expect(graph.problems).toEqual([]);
  expect(unreadableIn(graph, environment.formats)).toEqual([]);
});
