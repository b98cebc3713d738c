import { existsSync, readdirSync } from 'node:fs';
import { defineConfig } from 'vitest/config';

const conditions = ['@downfold/source'];

/** `quick` (default), `ci` or `long`: how much the whole-system proofs in apps/trials try. */
const tier =
  process.env['DOWNFOLD_TIER'] ?? (process.env['DOWNFOLD_LONG'] === '1' ? 'long' : 'quick');
/** `*.ci.test.ts` are not in the quick tier, `*.long.test.ts` only in the long one. */
const left = {
  quick: ['**/*.ci.test.ts', '**/*.long.test.ts'],
  ci: ['**/*.long.test.ts'],
  long: [],
};
const second = 1000;
const timeouts = { quick: 30 * second, ci: 180 * second, long: 3600 * second };
if (!(tier in timeouts)) throw new Error(`DOWNFOLD_TIER is '${tier}', not quick, ci or long`);
const testTimeout = timeouts[tier as keyof typeof timeouts];
// whole processes, many of them in one test: on a slow machine they take three times as long as on a usual one
const wholeSystem = { testTimeout: 5 * testTimeout, hookTimeout: 5 * testTimeout };

/** Proofs that work by one process after another, so that two of them go beside each other; all others want the machine alone. */
const paired = ['chains', 'pull', 'device', 'qemu-crash', 'agreement.ci'].map(
  (name) => `${name}.test.ts`,
);
/** `DOWNFOLD_PROOFS`: `paired` or `alone`, to run these apart; all, unless it is said. */
const half = process.env['DOWNFOLD_PROOFS'];
const proofs = {
  ...wholeSystem,
  exclude: readdirSync(new URL('apps/trials/test', import.meta.url))
    .filter((name) => half !== undefined && paired.includes(name) !== (half === 'paired'))
    .map((name) => `test/${name}`),
};

const folders = ['packages', 'apps'].flatMap((group) =>
  readdirSync(new URL(group, import.meta.url))
    .filter((name) => existsSync(new URL(`${group}/${name}/package.json`, import.meta.url)))
    .map((name) => ({ name, root: `${group}/${name}` })),
);

export default defineConfig({
  resolve: { conditions },
  ssr: { resolve: { conditions, externalConditions: conditions } },
  test: {
    include: ['test/**/*.test.ts'],
    exclude: ['**/node_modules/**', '**/dist/**', ...left[tier as keyof typeof left]],
    env: { DOWNFOLD_TIER: tier },
    isolate: false,
    // nor do our programs use it: see packages/host/src/maglev.ts
    execArgv: ['--no-maglev'],
    // the proofs of the other tiers use all processors by themselves
    ...(tier === 'quick' ? { maxWorkers: '100%' } : {}),
    testTimeout,
    hookTimeout: testTimeout,
    reporters: ['default', './tools/plain-count-reporter.ts'],
    coverage: { provider: 'v8', include: ['packages/*/src/**', 'apps/*/src/**'] },
    projects: [
      ...folders.map(({ name, root }) => ({
        extends: true as const,
        test: { name, root, ...(name === 'trials' ? proofs : {}) },
      })),
      // the examples in the READMEs
      { extends: true as const, test: { name: 'docs', root: 'tools', include: ['*.test.ts'] } },
    ],
  },
});
