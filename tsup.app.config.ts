import { defineConfig } from 'tsup';

/**
 * Every app that users run is built by this one, in its own folder, with `tsup --config ../../tsup.app.config.ts`: one self-contained folder, which
 * starts in a fraction of the time that resolving a dozen packages takes.
 */
export default defineConfig({
  entry: { main: 'src/main.ts' },
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
  esbuildOptions: (options) => {
    // straight from the sources, whatever state the other packages' dist is in
    options.conditions = ['@downfold/source', 'module', 'import'];
  },
});
