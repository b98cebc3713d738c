/**
 * Makes the golden images anew, with the QEMU that is installed (needs qemu-img and qemu-io):
 *
 *     node --conditions=@downfold/source packages/qcow2/test/golden/make.ts
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { type GoldenImage, IMAGES, MANIFEST, type Manifest } from './manifest.ts';
import { factsByQemu, qemuVersion, sha256 } from './qemu-facts.ts';
import { recipes } from './recipes.ts';

/** Runs every recipe in `directory`, and asks QEMU about each image once all are there. */
export function makeImages(directory: string): readonly Omit<GoldenImage, 'at'>[] {
  for (const { commands } of recipes)
    for (const command of commands)
      execFileSync('sh', ['-ec', command], { cwd: directory, stdio: 'pipe' });
  return recipes.map((recipe) => {
    const file = readFileSync(join(directory, recipe.name));
    const facts = recipe.refused === undefined ? factsByQemu(directory, recipe) : null;
    return { ...recipe, bytes: file.length, sha256: sha256(file), facts };
  });
}

function writeAll(): void {
  const directory = mkdtempSync(join(tmpdir(), 'downfold-golden-'));
  try {
    let at = 0;
    const images = makeImages(directory).map((image) => {
      const placed = { ...image, at };
      at += image.bytes;
      return placed;
    });
    const manifest: Manifest = { qemu: qemuVersion(), images };
    const files = images.map(({ name }) => readFileSync(join(directory, name)));
    writeFileSync(IMAGES, gzipSync(Buffer.concat(files), { level: 9 }));
    writeFileSync(MANIFEST, `${JSON.stringify(manifest, null, 2)}\n`);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

if (import.meta.main) writeAll();
