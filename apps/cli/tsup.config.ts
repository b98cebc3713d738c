import { defineConfig } from 'tsup';

/** One self-contained folder: a user's `downfold` starts in a fraction of the time that resolving a dozen packages takes. */
export default defineConfig({
  entry: { main: 'src/main.ts' },
  format: ['esm'],
  platform: 'node',
  target: 'esnext',
  removeNodeProtocol: false,
  tsconfig: 'tsconfig.build.json',
  noExternal: [/^@downfold\//, 'commander', 'zod'],
  // each command is a chunk of its own, loaded when it is run
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
