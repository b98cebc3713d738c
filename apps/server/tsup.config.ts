import { defineConfig } from 'tsup';

/** One self-contained folder, as the command line has. */
export default defineConfig({
  entry: { main: 'src/main.ts' },
  format: ['esm'],
  platform: 'node',
  target: 'esnext',
  removeNodeProtocol: false,
  tsconfig: 'tsconfig.build.json',
  noExternal: [/^@downfold\//, 'commander'],
  splitting: false,
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
