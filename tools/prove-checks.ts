/**
 * Shows that the checks check: plants one violation at a time in a copy of the workspace and asks
 * the tool that guards against it. A check that stays silent fails this script.
 */
import { spawnSync } from 'node:child_process';
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const bin = join(root, 'node_modules', '.bin');
/** Made by tools, or of no interest to the checks. */
const left = new Set(['node_modules', 'dist', '.turbo', '.git', 'coverage']);

interface Violation {
  readonly claim: string;
  readonly tool: 'biome' | 'turbo';
  /** What the tool prints when it has seen this very violation, and not something else. */
  readonly says: RegExp;
  /** Path below the workspace -> text to put at the end of the file, which may be new. */
  readonly files: Readonly<Record<string, string>>;
  /** Package below the workspace -> workspace package it is made to depend on. */
  readonly dependencies?: Readonly<Record<string, string>>;
}

const violations: readonly Violation[] = [
  {
    claim: 'a format that imports an I/O backend',
    tool: 'turbo',
    says: /Package `@downfold\/storage-file`[^`]*`@downfold\/raw`/,
    files: { 'packages/raw/src/planted.ts': "export * from '@downfold/storage-file';\n" },
    dependencies: { 'packages/raw': '@downfold/storage-file' },
  },
  {
    claim: 'a package that imports one of its own rank',
    tool: 'turbo',
    says: /Package `@downfold\/units`[^`]*`@downfold\/compliance`/,
    files: { 'packages/compliance/src/planted.ts': "export * from '@downfold/units';\n" },
    dependencies: { 'packages/compliance': '@downfold/units' },
  },
  {
    claim: 'a package that imports one of a higher rank',
    tool: 'turbo',
    says: /Package `@downfold\/strategies`[^`]*`@downfold\/image`/,
    files: { 'packages/image/src/planted.ts': "export * from '@downfold/strategies';\n" },
    dependencies: { 'packages/image': '@downfold/strategies' },
  },
  {
    claim: 'a protocol that imports a contract',
    tool: 'turbo',
    says: /Package `@downfold\/storage`[^`]*`@downfold\/nbd`/,
    files: { 'packages/nbd/src/planted.ts': "export * from '@downfold/storage';\n" },
    dependencies: { 'packages/nbd': '@downfold/storage' },
  },
  {
    claim: 'a backend that imports another one',
    tool: 'turbo',
    says: /Package `@downfold\/storage-file`[^`]*`@downfold\/storage-nbd`/,
    files: { 'packages/storage-nbd/src/planted.ts': "export * from '@downfold/storage-file';\n" },
    dependencies: { 'packages/storage-nbd': '@downfold/storage-file' },
  },
  {
    claim: 'a format that imports a protocol',
    tool: 'turbo',
    says: /Package `@downfold\/nbd`[^`]*`@downfold\/raw`/,
    files: { 'packages/raw/src/planted.ts': "export * from '@downfold/nbd';\n" },
    dependencies: { 'packages/raw': '@downfold/nbd' },
  },
  {
    claim: 'a package that imports an app',
    tool: 'turbo',
    says: /Package `@downfold\/trials`[^`]*`@downfold\/strategies`/,
    files: { 'packages/strategies/src/planted.ts': "export * from '@downfold/trials';\n" },
    dependencies: { 'packages/strategies': '@downfold/trials' },
  },
  {
    claim: 'an import cycle',
    tool: 'biome',
    says: /lint\/suspicious\/noImportCycles/,
    files: {
      'packages/raw/src/planted-a.ts':
        "import { b } from './planted-b.ts';\n\nexport const a = (): number => b();\n",
      'packages/raw/src/planted-b.ts':
        "import { a } from './planted-a.ts';\n\nexport const b = (): number => a();\n",
    },
  },
  {
    claim: 'a floating promise, of a function imported from a file',
    tool: 'biome',
    says: /lint\/nursery\/noFloatingPromises/,
    files: {
      'packages/raw/src/planted-a.ts': 'export async function late(): Promise<void> {}\n',
      'packages/raw/src/planted-b.ts':
        "import { late } from './planted-a.ts';\n\nexport function planted(): void {\n  late();\n}\n",
    },
  },
  {
    claim: 'a floating promise, of a method declared in another package',
    tool: 'biome',
    says: /lint\/nursery\/noFloatingPromises/,
    files: {
      'packages/units/src/planted.ts': 'export interface Planted {\n  late(): Promise<void>;\n}\n',
      'packages/units/src/index.ts': "\nexport type { Planted } from './planted.ts';\n",
      'packages/raw/src/planted.ts':
        "import type { Planted } from '@downfold/units';\n\nexport function plant(it: Planted): void {\n  it.late();\n}\n",
    },
  },
  {
    claim: 'a source file that imports a devDependency',
    tool: 'biome',
    says: /lint\/style\/noRestrictedImports/,
    files: {
      'packages/raw/src/planted.ts':
        "import * as memory from '@downfold/storage-memory';\n\nexport const planted: unknown = memory;\n",
    },
  },
  {
    claim: 'a source file that imports a library meant for tests',
    tool: 'biome',
    says: /lint\/correctness\/noUndeclaredDependencies/,
    files: {
      'packages/qcow2/src/planted.ts':
        "import fc from 'fast-check';\n\nexport const planted: unknown = fc;\n",
    },
  },
  {
    claim: 'a strategy that reaches for an I/O backend',
    tool: 'biome',
    says: /lint\/style\/noRestrictedImports/,
    files: {
      'packages/strategies/src/planted.ts':
        "import * as storage from '@downfold/storage';\n\nexport const planted: unknown = storage;\n",
    },
  },
  {
    claim: 'an explicit any',
    tool: 'biome',
    says: /lint\/suspicious\/noExplicitAny/,
    files: { 'packages/raw/src/planted.ts': 'export const planted: any = 1;\n' },
  },
];

/** Copies what the checks read, but not what is installed or built. */
function copyWorkspace(): string {
  const copy = mkdtempSync(join(tmpdir(), 'downfold-prove-'));
  for (const name of readdirSync(root)) {
    if (left.has(name)) continue;
    cpSync(join(root, name), join(copy, name), {
      recursive: true,
      filter: (source) => !left.has(basename(source)),
    });
  }
  return copy;
}

function plant(copy: string, violation: Violation): void {
  for (const [path, text] of Object.entries(violation.files)) {
    writeFileSync(join(copy, path), text, { flag: 'a' });
  }
  for (const [folder, dependency] of Object.entries(violation.dependencies ?? {})) {
    const path = join(copy, folder, 'package.json');
    const manifest = JSON.parse(readFileSync(path, 'utf8')) as {
      dependencies?: Record<string, string>;
    };
    manifest.dependencies = { ...manifest.dependencies, [dependency]: 'workspace:^' };
    writeFileSync(path, JSON.stringify(manifest));
  }
}

function check(copy: string, violation: Violation): { failed: boolean; output: string } {
  const planted = Object.keys(violation.files).filter((path) => path.includes('planted'));
  const args =
    violation.tool === 'turbo'
      ? ['boundaries', '--no-color']
      : ['lint', '--colors=off', ...planted];
  const run = spawnSync(join(bin, violation.tool), args, {
    cwd: copy,
    encoding: 'utf8',
    shell: process.platform === 'win32',
    env: { ...process.env, TURBO_TELEMETRY_DISABLED: '1' },
  });
  if (run.error) throw run.error;
  return { failed: run.status !== 0, output: run.stdout + run.stderr };
}

let missed = 0;
for (const violation of violations) {
  const copy = copyWorkspace();
  try {
    plant(copy, violation);
    const { failed, output } = check(copy, violation);
    const caught = failed && violation.says.test(output);
    if (!caught) missed += 1;
    process.stdout.write(
      `${caught ? 'caught' : 'NOT CAUGHT'} by ${violation.tool}: ${violation.claim}\n`,
    );
    if (!caught) process.stdout.write(`${output}\n`);
  } finally {
    rmSync(copy, { recursive: true, force: true });
  }
}
process.exitCode = missed === 0 ? 0 : 1;
