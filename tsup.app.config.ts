import { existsSync } from 'node:fs';
import type { Options } from 'tsup';
import { defineConfig } from 'tsup';

/** Threads start from files of their own. */
const THREADS = {
  'decode-worker': '../../packages/qcow2/src/decode-worker.ts',
  // only the server serves connections
  ...(existsSync('src/nbd')
    ? { 'nbd-worker': '../../packages/nbd/src/server/direct/worker.ts' }
    : {}),
};

type Plugin = NonNullable<Options['esbuildPlugins']>[number];

/**
 * What an ES module imports of Node is read once of every name that the builtin has, and that loads what stands behind each: `node:util` brings
 * worker threads, `node:crypto` all of WebCrypto, 15 ms of a start. Taken like this only the names that are used are read.
 */
const builtins: Plugin = {
  name: 'builtins',
  setup: (build) => {
    build.onResolve({ filter: /^node:/ }, ({ path, importer }) => ({
      // commander runs commands that are programs of their own; there are none, and child_process brings the sockets
      path: /[/]commander[/]/.test(importer) && path === 'node:child_process' ? NONE : path,
      namespace: 'builtin',
      sideEffects: false,
    }));
    build.onLoad({ filter: /.*/, namespace: 'builtin' }, ({ path }) => ({
      contents: moduleOf(path),
    }));
  },
};

/** Stands for a builtin of which nothing is used. */
const NONE = 'none';

/** A module of a builtin's names; those that nobody imports are dropped. */
function moduleOf(path: string): string {
  if (path === NONE) return 'export default {};';
  const names = Object.getOwnPropertyNames(process.getBuiltinModule(path) ?? {});
  const own = names.filter((name) => /^[A-Za-z_$][\w$]*$/.test(name) && !RESERVED.has(name));
  return [
    `const builtin = /* @__PURE__ */ process.getBuiltinModule('${path}');`,
    'export default builtin;',
    ...own.map((name) => `export const ${name} = /* @__PURE__ */ (() => builtin.${name})();`),
  ].join('\n');
}

/** Names of functions that have properties of their own, and what no variable may be called. */
const RESERVED: ReadonlySet<string> = new Set(['default', 'builtin', 'arguments', 'caller']);

/**
 * Every app that users run is built by this one, in its own folder, with `tsup --config ../../tsup.app.config.ts`: one self-contained folder, which
 * starts in a fraction of the time that resolving a dozen packages takes.
 */
export default defineConfig({
  entry: { main: 'src/main.ts', ...THREADS },
  format: ['esm'],
  platform: 'node',
  target: 'esnext',
  removeNodeProtocol: false,
  tsconfig: 'tsconfig.build.json',
  noExternal: [/^@downfold\//, 'commander', 'zod'],
  // what is imported when it is run is a chunk of its own
  splitting: true,
  minifySyntax: true,
  dts: false,
  sourcemap: true,
  clean: true,
  silent: true,
  esbuildPlugins: [builtins],
  esbuildOptions: (options) => {
    // straight from the sources, whatever state the other packages' dist is in
    options.conditions = ['@downfold/source', 'module', 'import'];
  },
});
