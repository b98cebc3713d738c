// `node tools/build-wasm.ts`: builds src/scan-module.ts, which is not in git, from wasm/scan.wat. The package's `prepare` and `build` run it.
import { readFileSync, writeFileSync } from 'node:fs';
import wabtModule from 'wabt';

const source = new URL('../wasm/scan.wat', import.meta.url);
const target = new URL('../src/scan-module.ts', import.meta.url);

const wabt = await wabtModule();
const parsed = wabt.parseWat('scan.wat', readFileSync(source, 'utf8'));
parsed.validate();
const { buffer } = parsed.toBinary({});
const text = `// Made by tools/build-wasm.ts from wasm/scan.wat.

/** The module, base64. */
export const SCAN_MODULE: string = '${Buffer.from(buffer).toString('base64')}';
`;
if (readOrNothing() !== text) writeFileSync(target, text);

function readOrNothing(): string {
  try {
    return readFileSync(target, 'utf8');
  } catch {
    return '';
  }
}
