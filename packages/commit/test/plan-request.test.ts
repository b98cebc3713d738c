import { expect, it } from 'vitest';
import type { ChainView, CommitError, CommitRequest, CommitStrategy } from '../src/index.ts';
import type { PlanRequest } from '../src/plan-request.ts';
import { onlooker, Workshop } from './workshop.ts';

/** base <- mid <- top <- active, and others beside it. */
async function chain(): Promise<Workshop> {
  const shop = new Workshop();
  await shop.make({
    '/vm/base': { cells: 'dd--' },
    '/vm/mid': { cells: '-d--', backing: 'base' },
    '/vm/top': { cells: '--d-', backing: 'mid' },
    '/vm/active': { cells: '----', backing: '/vm/top' },
    '/pool/twin': { cells: '----', backing: '../vm/top' },
    '/pool/child': { cells: '----', backing: '/vm/mid' },
    '/pool/grandchild': { cells: '----', backing: 'child' },
  });
  return shop;
}

interface Seen {
  readonly request: CommitRequest;
  readonly view: ChainView;
  /** Paths of nodes. */
  readonly path: (node: string | null) => string | null;
}

/** What a strategy gets to see for a request. */
async function look(
  shop: Workshop,
  request: Partial<PlanRequest>,
  operation: CommitStrategy['operation'] = 'commit',
  keepsSiblings = false,
): Promise<Seen> {
  const looking = onlooker(operation, keepsSiblings);
  const engine = shop.engine({ strategies: [looking.strategy] });
  await engine.plan({ file: '/vm/active', format: 'toy', strategy: 'look', ...request });
  const [asked, view] = looking.seen as [CommitRequest, ChainView];
  const all = [...view.chain, ...view.onto, ...view.outsiders];
  const path = (node: string | null): string | null =>
    all.find((one) => one.node === node)?.path ?? node;
  return { request: asked, view, path };
}

const paths = (images: readonly { readonly path: string }[]): string[] =>
  images.map((image) => image.path).sort();

it('commits the leaf into its backing file unless told otherwise', async () => {
  const { request, path, view } = await look(await chain(), {});
  expect(paths(view.chain)).toEqual(['/vm/active', '/vm/base', '/vm/mid', '/vm/top']);
  expect([path(request.base), path(request.top)]).toEqual(['/vm/top', '/vm/active']);
  expect(request).toMatchObject({
    operation: 'commit',
    emptyTop: false,
    siblings: 'refuse',
    keepUndo: false,
    unsafe: false,
    checkpointBytes: 128 << 20,
  });
});

it('finds base and top as an overlay names them, by absolute path, and beside the leaf', async () => {
  const shop = await chain();
  for (const top of ['/vm/top', 'top'])
    for (const base of ['base', '/vm/base']) {
      const { request, path } = await look(shop, { base, top, invalidateSiblings: true });
      expect([path(request.base), path(request.top)]).toEqual(['/vm/base', '/vm/top']);
    }
});

it('refuses ends that are not in the chain, or stand on their heads', async () => {
  const shop = await chain();
  const engine = shop.engine();
  const plan = (request: Partial<PlanRequest>): Promise<unknown> =>
    engine.plan({ file: '/vm/active', format: 'toy', strategy: 'plain', ...request });
  await expect(plan({ base: 'nobody' })).rejects.toThrow(
    "Did not find 'nobody' in the backing chain of '/vm/active'",
  );
  await expect(plan({ base: '/pool/child' })).rejects.toMatchObject({ code: 'COMMIT_BAD_REQUEST' });
  await expect(plan({ base: 'top', top: 'mid' })).rejects.toMatchObject({
    code: 'COMMIT_BAD_REQUEST',
  });
  await expect(plan({ file: '/vm/base' })).rejects.toThrow('does not have a backing file');
  await expect(plan({ strategy: 'magic' })).rejects.toMatchObject({
    code: 'COMMIT_UNKNOWN_STRATEGY',
  });
});

it('refuses when others would be stranded, names them, and says the three ways on', async () => {
  const shop = await chain();
  const request = { base: 'base', top: '/vm/top', pools: ['/pool'] };
  const refused = expect(look(shop, request)).rejects;
  await refused.toMatchObject({
    code: 'COMMIT_STRANDS',
    details: { images: ['/pool/child', '/pool/grandchild'] },
  });
  for (const said of ['--keep-siblings', '--invalidate-siblings', 'downfold rebase'])
    await expect(look(shop, request)).rejects.toThrow(said);
  await expect(look(shop, { ...request, keepSiblings: true })).rejects.toMatchObject({
    code: 'COMMIT_UNSUPPORTED',
  });
});

it('refuses when somebody may be stranded who cannot be read, names each, and says the three ways on', async () => {
  const shop = await chain();
  await shop.make({
    '/vm/odd': { cells: '----', backing: 'json:{"file":"base"}' },
    '/vm/far': { cells: '----', backing: 'nbd:there' },
  });
  const { code, message, details } = await look(shop, { base: 'base', top: '/vm/top' }).then(
    () => null as never,
    (cause: unknown) => cause as CommitError,
  );
  expect([code, details]).toEqual([
    'COMMIT_UNREADABLE',
    { images: ['/vm/far', '/vm/odd'], codes: ['CHAIN_FORBIDDEN_NAME', 'CHAIN_FORBIDDEN_NAME'] },
  ]);
  for (const said of ["/vm/far (backing file name 'nbd:there' names", '--ignore-unreadable'])
    expect(message).toContain(said);
  // it could not be kept, nor marked: that others may be lost does not accept it
  for (const more of [{ keepSiblings: true }, { invalidateSiblings: true }])
    await expect(look(shop, more, 'commit', true)).rejects.toMatchObject({
      code: 'COMMIT_UNREADABLE',
    });
});

it('goes on at their risk when it is told so; the plan lists them; other operations change what nobody reads', async () => {
  const shop = await chain();
  await shop.make({ '/vm/odd': { cells: '----', backing: 'json:{"file":"base"}' } });
  const odd = {
    path: '/vm/odd',
    code: 'CHAIN_FORBIDDEN_NAME',
    reason: `backing file name 'json:{"file":"base"}' names a protocol; only plain files are opened`,
  };
  const request = { file: '/vm/active', format: 'toy', strategy: 'plain', emptyTop: true };
  const plan = await shop.engine().plan({ ...request, ignoreUnreadable: true });
  expect(plan.unreadable).toEqual([odd]);
  expect(JSON.parse(JSON.stringify(plan))).toEqual(plan);
  expect((await shop.engine().run(plan)).unreadable).toEqual([odd]);
  for (const operation of ['stream', 'rebase'] as const)
    await look(shop, { file: '/vm/top' }, operation);
});

it('shows a strategy who hangs off the chain, and who would be stranded', async () => {
  const shop = await chain();
  const request = { base: 'base', top: '/vm/top', pools: ['/pool'], keepSiblings: true };
  const { request: asked, view, path } = await look(shop, request, 'commit', true);
  expect(asked.siblings).toBe('keep');
  expect(paths(view.outsiders)).toEqual(['/pool/child', '/pool/grandchild']);
  expect(paths(view.overlaysOf(asked.top))).toEqual(['/pool/twin', '/vm/active']);
  const [, mid] = view.chain;
  expect(paths(view.overlaysOf(mid?.node ?? ''))).toEqual(['/pool/child', '/vm/top']);
  expect(view.dependents).toEqual([
    { path: '/pool/twin', through: '/vm/top' },
    { path: '/pool/child', through: '/vm/mid' },
    { path: '/pool/grandchild', through: '/vm/mid' },
  ]);
  const links = Object.entries(view.links).map(([node, link]) => [path(node), path(link)]);
  expect(links).toContainEqual(['/pool/grandchild', '/pool/child']);
  expect(links).toContainEqual(['/pool/child', '/vm/mid']);
  expect(links).toContainEqual(['/vm/base', null]);
});

it('knows nobody outside the directories that it was told of', async () => {
  const { view } = await look(await chain(), { base: 'base', top: '/vm/top' });
  expect([...view.outsiders, ...view.dependents]).toEqual([]);
});

it('shows allocation of the chain, and of siblings to those that may keep them', async () => {
  const shop = await chain();
  const request = { base: 'base', top: '/vm/top', pools: ['/pool'] };
  const { request: asked, view } = await look(shop, { ...request, invalidateSiblings: true });
  const whole = { offset: 0, length: 16384 } as Parameters<ChainView['extents']>[1];
  const statuses: string[] = [];
  for await (const batch of view.extentsAbove({ base: asked.base, top: asked.top }, whole))
    for (const { status, owner } of batch) statuses.push(`${status} ${owner}`);
  const [, mid, top] = view.chain.map(({ node }) => node);
  expect(statuses).toEqual(['unallocated null', `data ${mid}`, `data ${top}`, 'unallocated null']);
  expect(
    ['deallocate', 'mark', 'stage', 'zero'].map((one) => view.can(asked.top, one as 'mark')),
  ).toEqual([true, true, false, true]);
  const [child] = view.outsiders;
  expect(() => view.extents(child?.node ?? '', whole)).toThrow('is not open');
});

it('streams down to nothing unless a base is named', async () => {
  const shop = await chain();
  const { request } = await look(shop, { file: '/vm/top' }, 'stream');
  expect(request.base).toBeNull();
  const named = await look(shop, { file: '/vm/top', base: 'base' }, 'stream');
  expect(named.path(named.request.base)).toBe('/vm/base');
});

it('rebases onto nothing, onto a layer of the chain, and onto another chain, as far as that is new', async () => {
  const shop = await chain();
  const top = { file: '/vm/top', baseFormat: 'toy' };
  const nothing = await look(shop, { file: '/vm/top' }, 'rebase');
  expect([nothing.request.base, nothing.view.onto]).toEqual([null, []]);
  const down = await look(shop, { ...top, base: '/vm/base' }, 'rebase');
  expect([down.path(down.request.base), down.view.onto]).toEqual(['/vm/base', []]);
  const beside = await look(shop, { ...top, base: '/pool/grandchild' }, 'rebase');
  expect(paths(beside.view.onto)).toEqual(['/pool/child', '/pool/grandchild']);
  const [child] = beside.view.onto;
  expect(beside.path(beside.view.links[child?.node ?? ''] ?? null)).toBe('/vm/mid');
});

it('refuses to rebase without a format, and onto what reads through the image itself', async () => {
  const shop = await chain();
  await expect(look(shop, { file: '/vm/top', base: '/vm/base' }, 'rebase')).rejects.toThrow(
    'say the format of the new backing file',
  );
  for (const base of ['/vm/top', '/vm/active', '/pool/twin'])
    await expect(
      look(shop, { file: '/vm/top', base, baseFormat: 'toy' }, 'rebase'),
    ).rejects.toMatchObject({ code: 'COMMIT_BAD_REQUEST' });
});

it('plans without changing a file', async () => {
  const shop = await chain();
  const before = shop.disk.copy();
  await look(shop, { base: 'base', top: '/vm/top', invalidateSiblings: true });
  for (const [path, inode] of before.names) {
    expect(shop.disk.names.get(path)).toBe(inode);
    expect(await shop.backend.facts(path)).toEqual(before.facts(path));
  }
});
