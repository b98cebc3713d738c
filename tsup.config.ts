import { existsSync } from 'node:fs';
import { defineConfig } from 'tsup';

/** What a package may offer: output name -> source file. Those that exist are built. */
const entries = {
  index: 'src/index.ts',
  main: 'src/main.ts',
  'decode-worker': 'src/decode-worker.ts',
  'tool-starter': 'src/tool-starter.ts',
  'compliance/index': 'src/compliance/index.ts',
  'faults/index': 'src/faults/index.ts',
  'nbd-worker': 'src/server/direct/worker.ts',
};

/** Every package runs this one, in its own folder, with `tsup --config ../../tsup.config.ts`. */
export default defineConfig({
  entry: Object.fromEntries(Object.entries(entries).filter(([, source]) => existsSync(source))),
  format: ['esm'],
  platform: 'node',
  target: 'esnext',
  removeNodeProtocol: false,
  // without the `paths` that editors and the linter follow to the source of other packages
  tsconfig: 'tsconfig.build.json',
  // `tsc` writes the declarations
  dts: false,
  sourcemap: true,
  clean: true,
  silent: true,
});
