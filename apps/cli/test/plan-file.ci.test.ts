import { readFileSync, writeFileSync } from 'node:fs';
import { perTier } from '@downfold/compliance';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { backingIn, complaints, IDENTICAL, makePool, type Pool } from './qemu-pool.ts';
import { type Bench, haveQemu, start } from './support.ts';

const MIDDLE = ['-b', 'base.qcow2', '--top', 'top.qcow2', 'active.qcow2'];
const CHAIN = ['base.qcow2', 'mid.qcow2', 'top.qcow2', 'active.qcow2'] as const;
const PLAN = 'plan.json';

let pool: Pool;
beforeAll(() => {
  if (haveQemu)
    pool = makePool([
      { name: 'base.qcow2', size: '2M', io: ['write -P 1 0 1M'] },
      { name: 'mid.qcow2', size: '2M', backing: 'base.qcow2', io: ['write -P 2 512k 512k'] },
      { name: 'top.qcow2', size: '2M', backing: 'mid.qcow2', io: ['write -P 3 768k 512k'] },
      { name: 'active.qcow2', size: '2M', backing: 'top.qcow2', io: ['write -P 4 1500k 64k'] },
    ]);
});
afterAll(() => {
  if (haveQemu) pool[Symbol.dispose]();
});

/** A copy of the chain with a plan of `downfold commit ARGS`. */
function planned(...args: readonly string[]): Bench {
  const work = pool.copy();
  const { code, stderr } = work.downfold('commit', '--plan-out', PLAN, ...args, ...MIDDLE);
  expect([code, stderr]).toEqual([0, '']);
  return work;
}

function readPlan(work: Bench): Record<string, unknown> {
  return JSON.parse(readFileSync(work.file(PLAN), 'utf8')) as Record<string, unknown>;
}

/** That the middle of the chain was committed, as QEMU sees it. */
function expectCommitted(work: Bench): void {
  expect(pool.compare(work, 'base.qcow2', 'top.qcow2')).toBe(IDENTICAL);
  for (const name of ['top.qcow2', 'active.qcow2'])
    expect(pool.compare(work, name)).toBe(IDENTICAL);
  expect(backingIn(work, 'active.qcow2')).toBe('base.qcow2 (qcow2)');
  expect(complaints(work, ...CHAIN)).toEqual([]);
}

/** Runs the plan, which must be refused in one line, and change nothing; resolves with the line. */
function refusal(work: Bench, ...more: readonly string[]): string {
  const before = work.digest();
  const file = more.at(-1)?.endsWith('.qcow2') === true ? [] : ['active.qcow2'];
  const { code, stdout, stderr } = work.downfold('commit', '--plan', PLAN, ...more, ...file);
  expect([code, stdout]).toEqual([1, '']);
  expect(stderr).toMatch(/^downfold: .*\n$/);
  expect(work.digest()).toEqual(before);
  return stderr;
}

describe.skipIf(!haveQemu)('commit --plan-out', () => {
  it('writes the plan that a dry run shows, and nothing else', () => {
    using work = pool.copy();
    // what the system has not yet given space to counts for less
    work.must('sync', ...CHAIN);
    const before = work.digest();
    const shown = work.json('commit', '--dry-run', ...MIDDLE);
    const { code, stdout } = work.downfold('commit', '--plan-out', PLAN, ...MIDDLE);
    expect(code).toBe(0);
    expect(stdout).toMatch(/^Plan: commit top\.qcow2 into base\.qcow2 \(copy-down\)\n/);
    expect(stdout).toMatch(
      /\nNo image was changed\. To do this: downfold commit --plan 'plan\.json' 'active\.qcow2'\n$/,
    );
    const { [PLAN]: text, ...images } = work.digest();
    expect(text).toBeDefined();
    expect(images).toEqual(before);
    const seconds = { estimatedSeconds: expect.any(Number) };
    expect(readPlan(work)).toEqual({ ...shown, ...seconds });
  });

  it('never writes over a file', () => {
    using work = planned();
    const before = work.digest();
    const { code, stderr } = work.downfold('commit', '--plan-out', PLAN, ...MIDDLE);
    expect(code).toBe(1);
    expect(stderr).toMatch(
      /^downfold: Could not commit 'active\.qcow2': .*plan\.json: .*exists.*\n$/,
    );
    expect(work.digest()).toEqual(before);
  });
});

describe.skipIf(!haveQemu)('commit --plan', () => {
  it.each(['copy-down', 'depth-first', 'preserve', 'staged', 'auto'])(
    'does what a plan of %s says',
    (strategy) => {
      using work = planned('--strategy', strategy);
      const { bytesToCopy, strategy: chosen } = readPlan(work);
      const result = work.json('commit', '--plan', PLAN, 'active.qcow2');
      expect(result).toMatchObject({
        strategy: (chosen as { name: string }).name,
        bytesCopied: bytesToCopy,
      });
      expectCommitted(work);
    },
  );

  it('does what a plan of stream and of rebase says', () => {
    using work = pool.copy();
    const args = ['--plan-out', PLAN, 'active.qcow2'];
    expect(work.downfold('stream', '-b', 'mid.qcow2', ...args).code).toBe(0);
    const streamed = work.json('commit', '--plan', PLAN, 'active.qcow2');
    expect(streamed).toMatchObject({ operation: 'stream', strategy: 'stream' });
    expect(backingIn(work, 'active.qcow2')).toBe('mid.qcow2 (qcow2)');
    work.must('rm', PLAN);
    expect(work.downfold('rebase', '-b', 'base.qcow2', '-F', 'qcow2', ...args).code).toBe(0);
    const rebased = work.json('commit', '--plan', PLAN, 'active.qcow2');
    expect(rebased).toMatchObject({ operation: 'rebase', strategy: 'rebase' });
    expect(backingIn(work, 'active.qcow2')).toBe('base.qcow2 (qcow2)');
    expect(pool.compare(work, 'active.qcow2')).toBe(IDENTICAL);
  });

  it('--dry-run shows it again, and writes nothing', () => {
    using work = planned();
    const before = work.digest();
    const { code, stdout } = work.downfold('commit', '--plan', PLAN, '--dry-run', 'active.qcow2');
    expect(code).toBe(0);
    expect(stdout).toMatch(/^Plan: commit top\.qcow2 into base\.qcow2 \(copy-down\)\n/);
    expect(work.digest()).toEqual(before);
  });

  it('does not mind an image that has nothing to do with the chain', () => {
    using work = planned('--strategy', 'preserve');
    work.must('qemu-img', 'create', '-q', '-f', 'qcow2', 'a-new-one.qcow2', '1M');
    expect(work.downfold('commit', '--plan', PLAN, 'active.qcow2').code).toBe(0);
    expectCommitted(work);
  });

  const write = (name: string) => (work: Bench) =>
    work.must('qemu-io', '-f', 'qcow2', '-c', 'write -P 5 0 64k', name);
  const overlayOf = (name: string) => (work: Bench) =>
    work.must('qemu-img', 'create', '-q', '-f', 'qcow2', '-b', name, '-F', 'qcow2', 'new.qcow2');

  it.each([
    ['base was written to', write('base.qcow2'), /\/base\.qcow2: changed since .*was.*, is/],
    ['an intermediate was', write('mid.qcow2'), /\/mid\.qcow2: changed since .*was.*, is/],
    ['the leaf was', write('active.qcow2'), /\/active\.qcow2: changed since .*was.*, is/],
    [
      'an image was only touched',
      (work) => work.must('touch', 'top.qcow2'),
      /\/top\.qcow2: changed since .*modified was .*, is/,
    ],
    [
      'another file has the name of one, with the same bytes and times',
      (work) => work.must('sh', '-c', 'cp -p mid.qcow2 x && mv x mid.qcow2'),
      /\/mid\.qcow2: changed since .*identity\.inode was .*, is/,
    ],
    [
      'one is gone',
      (work) => work.must('rm', 'base.qcow2'),
      /\/mid\.qcow2: backing file 'base\.qcow2' is not there/,
    ],
    [
      'the backing reference of one changed',
      (work) =>
        work.must('qemu-img', 'rebase', '-u', '-b', 'base.qcow2', '-F', 'qcow2', 'top.qcow2'),
      /\/top\.qcow2: was written to since .* would change what another image reads: .*mid\.qcow2/,
    ],
    [
      'the chain does not hold top any more',
      (work) =>
        work.must('qemu-img', 'rebase', '-u', '-b', 'mid.qcow2', '-F', 'qcow2', 'active.qcow2'),
      /\/active\.qcow2: was written to since .*Did not find .*top\.qcow2' .*; plan again/,
    ],
    ['base has a new overlay', overlayOf('base.qcow2'), /other.* reads?: .*\/new\.qcow2/],
    ['an intermediate has', overlayOf('mid.qcow2'), /other.* reads?: .*\/new\.qcow2/],
    ['top has', overlayOf('top.qcow2'), /\/new\.qcow2: depends on .* was not there when the plan/],
    ['the leaf has', overlayOf('active.qcow2'), /\/new\.qcow2: depends on .* was not there when/],
  ] as readonly (readonly [string, (work: Bench) => unknown, RegExp])[])(
    'refuses when %s, and says so',
    (_, change, why) => {
      using work = planned();
      change(work);
      expect(refusal(work)).toMatch(why);
    },
  );

  it('refuses with its own class of error', () => {
    using work = planned();
    write('top.qcow2')(work);
    const args = ['commit', '--plan', PLAN, '--output', 'json', 'active.qcow2'];
    expect(JSON.parse(work.downfold(...args).stdout)).toMatchObject({
      error: { class: 'COMMIT_CHANGED', details: { image: work.file('top.qcow2') } },
    });
  });

  it('refuses a plan for another leaf', () => {
    using work = planned();
    expect(refusal(work, 'top.qcow2')).toMatch(
      /'plan\.json' is a plan for '.*\/active\.qcow2', not for 'top\.qcow2'/,
    );
  });

  it('refuses a plan that is not there', () => {
    using work = pool.copy();
    expect(refusal(work)).toMatch(/plan\.json: no such file/);
  });
});

// nothing changes in them: one directory will do
describe.skipIf(!haveQemu)('commit --plan with a chain as it was', () => {
  let work: Bench;
  let text: string;
  beforeAll(() => {
    work = planned();
    text = readFileSync(work.file(PLAN), 'utf8');
  });
  afterAll(() => work[Symbol.dispose]());

  it.each([
    ['-b', 'mid.qcow2'],
    ['--top', 'top.qcow2'],
    ['--strategy', 'copy-down'],
    ['--pool', '.'],
    ['--keep-siblings'],
    ['--invalidate-siblings'],
    ['--keep-undo'],
    ['-d'],
  ])('refuses %s beside it', (...option) => {
    expect(refusal(work, ...option, 'active.qcow2')).toMatch(/^downfold: --plan settles .*/);
  });

  it.each([
    ['nothing', '', /no plan: Unexpected end/],
    ['no JSON', 'plan', /no plan: .*JSON/],
    ['another value', '17', /no plan: .*expected object/],
    ['null', 'null', /no plan: .*expected object/],
    ['a list', '[]', /no plan: .*expected object/],
    ['an object without anything', '{}', /no plan: .*planVersion/],
    ['zeros', '\0'.repeat(100), /no plan: .*JSON/],
  ])('refuses %s in the place of a plan', (_, instead, why) => {
    writeFileSync(work.file(PLAN), instead);
    expect(refusal(work)).toMatch(why);
  });

  it.each([
    ['planVersion', 2, /no plan: .*planVersion/],
    ['chainLength', 5, /no plan: it has no 5 images/],
    ['chainLength', 3, /is a plan for '.*\/top\.qcow2'/],
    ['images.0.path', '/etc/passwd', /Did not find '\/etc\/passwd' in the backing chain/],
    ['images.3.format', 'raw', /does not have a backing file; plan again/],
    ['images.1.geometry.virtualSize', 4096, /mid\.qcow2: changed .*geometry\.virtualSize was 4096/],
    ['strategy.name', 'magic', /strategy 'magic' .* is not here/],
    ['strategy.name', 'stream', /plan again/],
    ['strategy.version', 9, /does not fit, or was edited \(strategy\.version was 9, is \d+\)/],
    ['request.top', 'l9', /no plan: it has no image 'l9'/],
    ['request.top', 'l1', /was edited \(/],
    ['request.base', null, /was edited \(/],
    ['request.emptyTop', true, /has overlays: emptying it/],
    ['links.l2', 'l0', /was edited \(links\.l2 was "l0", is "l1"\)/],
    ['writes', [], /was edited \(writes\.0 was nothing, is "l0"\)/],
    ['relinks.0.to.name', 'mid.qcow2', /was edited \(relinks\.0\.to\.name was "mid\.qcow2"/],
    ['invalidates', [], /was edited \(invalidates\.0 was nothing/],
    ['growBaseTo', 1, /was edited \(growBaseTo was 1, is null\)/],
    ['unheard', { of: true }, /was edited \(unheard was \{"of":true\}, is nothing\)/],
  ] as const)('refuses a plan in which %s is %j', (where, value, why) => {
    const plan = JSON.parse(text) as Record<string, unknown>;
    edit(plan, where.split('.'), value);
    writeFileSync(work.file(PLAN), JSON.stringify(plan));
    expect(refusal(work)).toMatch(why);
  });
});

function edit(value: Record<string, unknown>, [key = '', ...rest]: string[], to: unknown): void {
  if (rest.length === 0) value[key] = to;
  else edit(value[key] as Record<string, unknown>, rest, to);
}

/** How many edits are tried. */
const EDITS = perTier({ quick: 40, ci: 200, long: 2000 });

/** Whole numbers in [0, below), drawn from a seed. */
function drawFrom(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

/** Every place in a JSON value, as the object that holds it and its key there. */
function placesIn(value: unknown): [holder: Record<string, unknown>, key: string][] {
  if (typeof value !== 'object' || value === null) return [];
  const holder = value as Record<string, unknown>;
  return Object.keys(holder).flatMap((key) => [[holder, key], ...placesIn(holder[key])]);
}

/** A plan's text, changed in one place: a value, a key, or bytes of it. */
function edited(text: string, seed: number): string {
  const draw = drawFrom(seed);
  if (draw(8) === 0) {
    const at = draw(text.length);
    return text.slice(0, at) + '0{]"n\\-'.charAt(draw(8)) + text.slice(at + draw(3));
  }
  const plan = JSON.parse(text) as unknown;
  const places = placesIn(plan);
  const [holder, key] = places[draw(places.length)] as [Record<string, unknown>, string];
  const [other, from] = places[draw(places.length)] as [Record<string, unknown>, string];
  const strange = [null, 0, -1, 2 ** 60, '', 'l1', '../../etc', [], {}, true, [null], other[from]];
  if (draw(8) === 0) delete holder[key];
  else holder[key] = strange[draw(strange.length)];
  return JSON.stringify(plan);
}

/** Tries every second edit from `first` on, one after the other; resolves with how many plans ran. */
async function tryEdits(first: number): Promise<number> {
  using work = planned();
  const text = readFileSync(work.file(PLAN), 'utf8');
  const { [PLAN]: _, ...before } = work.digest();
  let ran = 0;
  for (let seed = first; seed <= EDITS; seed += 2) {
    const replay = `replay: edited(text, ${seed})`;
    writeFileSync(work.file(PLAN), edited(text, seed));
    const args = ['--plan', PLAN, '--output', 'json', 'active.qcow2'];
    const { code, stdout, stderr } = await start(work, 'commit', ...args).ended;
    const said = JSON.parse(stdout) as { strategy?: string; error?: { class: string } };
    if (code === 0) {
      ran++;
      expect(said.strategy, replay).toBe('copy-down');
      expectCommitted(work);
      // as they were, under their names and with their times: the plan fits again
      work.must('cp', '-a', `${pool.origin.path}/.`, '.');
    } else {
      expect(stderr, replay).toMatch(/^downfold: [^\n]*\n$/);
      expect(said.error?.class, replay).toMatch(/^(?!INTERNAL)[A-Z_]+$/);
    }
    const { [PLAN]: __, ...after } = work.digest();
    expect(after, replay).toEqual(before);
  }
  return ran;
}

describe.skipIf(!haveQemu)('a plan that somebody edited', () => {
  it(`in ${EDITS} ways is refused in one line, with nothing changed, or runs right`, {
    timeout: EDITS * 20_000,
  }, async () => {
    const [odd, even] = await Promise.all([tryEdits(1), tryEdits(2)]);
    // edits of figures that are for people alone: else none of this could have run
    expect(odd + even).toBeGreaterThan(0);
  });
});
