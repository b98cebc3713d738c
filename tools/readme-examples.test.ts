import { spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

/**
 * The README of the workspace and of every package has a `ts run` block, and each of them compiles and runs. They run in a
 * folder outside the workspace, where a user's would be, with all packages installed and a chain of images beside them.
 */
const root = fileURLToPath(new URL('..', import.meta.url));
const packages = readdirSync(join(root, 'packages')).filter((name) =>
  existsSync(join(root, 'packages', name, 'package.json')),
);
const readmes = [
  { name: 'downfold', readme: join(root, 'README.md') },
  ...packages.map((name) => ({ name, readme: join(root, 'packages', name, 'README.md') })),
];
const examples = readmes.map(({ name, readme }) => {
  const text = existsSync(readme) ? readFileSync(readme, 'utf8') : '';
  const blocks = [...text.matchAll(/^```ts run\n(.*?)^```$/gms)].map((match) => match[1] ?? '');
  return { name, blocks };
});

let folder = '';

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'downfold-readme-'));
  const modules = join(folder, 'node_modules');
  mkdirSync(join(modules, '@downfold'), { recursive: true });
  for (const name of packages) {
    symlinkSync(join(root, 'packages', name), join(modules, '@downfold', name), 'junction');
  }
  symlinkSync(join(root, 'node_modules', '@types'), join(modules, '@types'), 'junction');
  writeFileSync(join(folder, 'package.json'), '{ "type": "module" }\n');
  writeFileSync(
    join(folder, 'tsconfig.json'),
    JSON.stringify({
      extends: join(root, 'tsconfig.base.json'),
      compilerOptions: { noUnusedLocals: false, isolatedDeclarations: false, declaration: false },
      include: ['*.ts'],
    }),
  );
  // the chain that the example of the workspace commits
  const chain = ['base', 'monday', 'tuesday', 'disk'];
  chain.forEach((name, i) => {
    const backing = i === 0 ? [] : ['-b', `${chain[i - 1]}.qcow2`, '-F', 'qcow2'];
    downfold('create', '-q', ...backing, `${name}.qcow2`, '16M');
  });
  for (const { name, blocks } of examples) {
    blocks.forEach((code, i) => {
      writeFileSync(join(folder, `${name}.${i + 1}.ts`), code);
    });
  }
});

afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});

function node(...args: readonly string[]): { status: number | null; output: string } {
  const run = spawnSync(process.execPath, args, { cwd: folder, encoding: 'utf8', timeout: 60_000 });
  if (run.error) throw run.error;
  return { status: run.status, output: run.stdout + run.stderr };
}

/** The command line, from its source. */
function downfold(...args: readonly string[]): void {
  const cli = join(root, 'apps', 'cli', 'src', 'main.ts');
  const { status, output } = node('--conditions=@downfold/source', cli, ...args);
  if (status !== 0) throw new Error(output);
}

describe.each(examples)('README of $name', ({ name, blocks }) => {
  it('has an example: a block that starts with ```ts run', () => {
    expect(blocks.length).toBeGreaterThan(0);
  });

  it.each(blocks.map((_, i) => i + 1))('example %i runs', (number) => {
    const file = join(folder, `${name}.${number}.ts`);
    const { status, output } = node('--conditions=@downfold/source', file);
    expect(status, output).toBe(0);
  });
});

it('all examples compile', () => {
  const { status, output } = node(
    join(root, 'node_modules', 'typescript', 'bin', 'tsc'),
    '-p',
    '.',
  );
  expect(status, output).toBe(0);
});
