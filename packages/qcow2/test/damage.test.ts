import { caseContext, perTier } from '@downfold/compliance';
import type { CheckFinding } from '@downfold/image';
import type { MemoryDisk } from '@downfold/storage-memory';
import { describe, expect, test } from 'vitest';
import { Craft } from './craft.ts';
import { IMAGE } from './crash-lab.ts';
import { places, sound } from './sound-image.ts';
import { attempt, bytesOn, dump, haveQemu, openOn, readAll, scratch, seeds } from './support.ts';

/**
 * Bits flipped in metadata: where `qemu-img check` finds an error, Downfold's check finds one too or refuses the image; the same
 * for leaks; and where QEMU finds nothing, neither does Downfold. Replay one: DOWNFOLD_SEED=n vitest run --project qcow2 damage
 */
type Verdict = 'clean' | 'leaks' | 'errors' | 'refused';

function qemuVerdict(path: string): Verdict {
  const { status } = attempt('qemu-img', 'check', '-q', '-f', 'qcow2', path);
  return status === 0 ? 'clean' : status === 3 ? 'leaks' : status === 2 ? 'errors' : 'refused';
}

interface Judgement {
  readonly verdict: Verdict;
  /** The worst of the findings. */
  readonly why: string;
  /** Nothing but leaks past the end of the file. */
  readonly pastEnd: boolean;
}

async function verdict(disk: MemoryDisk): Promise<Judgement> {
  try {
    await using image = await openOn(disk, IMAGE, 'read');
    const findings: CheckFinding[] = [];
    const { corruptions, leaks } = await image.check({
      onFinding: (found) => findings.push(found),
    });
    const end = bytesOn(disk, IMAGE).length;
    return {
      verdict: corruptions > 0 ? 'errors' : leaks > 0 ? 'leaks' : 'clean',
      why:
        (findings.find(({ severity }) => severity === 'corruption') ?? findings[0])?.message ?? '',
      pastEnd: findings.every(
        ({ severity, offset }) => severity === 'leak' && (offset ?? 0) >= end,
      ),
    };
  } catch (error) {
    expect((error as Error).name, String(error)).toBe('ImageError');
    return { verdict: 'refused', why: (error as Error).message, pastEnd: false };
  }
}

/**
 * What Downfold may say when QEMU says this. It is stricter in three points: clusters that are counted past the end of the file are
 * leaks; a zero flag where the format has none is an error; offsets above 2^53 are refused wherever they stand.
 */
const allowed: Readonly<Record<Verdict, readonly Verdict[]>> = {
  clean: ['clean'],
  leaks: ['leaks', 'errors', 'refused'],
  errors: ['errors', 'refused'],
  refused: ['errors', 'refused'],
};

describe.skipIf(!haveQemu)('a check of a damaged image', () => {
  const tally = new Map<string, number>();

  test.each(seeds(perTier({ quick: 100, ci: 1000, long: 20_000 })))('seed %i', async (seed) => {
    const { integer, random } = caseContext(seed * 31);
    const disk = await sound(seed);
    expect((await verdict(disk)).verdict).toBe('clean');
    const craft = new Craft(disk, IMAGE);
    const { version } = craft.header;
    const kinds = Object.entries(places(craft)).filter(([, list]) => list.length > 0);
    const [kind, list] = kinds[integer(kinds.length)] as (typeof kinds)[number];
    const [at, length] = list[integer(list.length)] as readonly [number, number];
    const byte = at + integer(length);
    const bit = 1 << integer(8);
    craft.set(byte, Uint8Array.of((craft.bytes(byte, 1)[0] as number) ^ bit));
    if (random() < 0.2) craft.set(at + integer(length), Uint8Array.of(integer(256)));
    const before = bytesOn(disk, IMAGE);
    const { verdict: ours, why, pastEnd } = await verdict(disk);
    const zeroFlag =
      (version === 2 || craft.geometry.extendedL2) && why.startsWith('reserved bits');
    using dir = scratch();
    dump(disk, IMAGE, dir.path('image.qcow2'));
    const theirs = qemuVerdict(dir.path('image.qcow2'));
    const about = `seed ${seed}: ${kind}, byte ${byte}, bit ${bit}; QEMU: ${theirs}, Downfold: ${ours} ${why}`;
    const stricter = pastEnd || zeroFlag || why.includes('above 2^53-1');
    if (!(theirs === 'clean' && stricter)) expect(allowed[theirs], about).toContain(ours);
    expect(Buffer.compare(bytesOn(disk, IMAGE), before)).toBe(0);
    // reading never does anything worse than refuse
    await openOn(disk, IMAGE, 'read').then(
      (image) => readAll(image).catch((error: Error) => expect(error.name).toBe('ImageError')),
      () => null,
    );
    tally.set(`${theirs}/${ours}`, (tally.get(`${theirs}/${ours}`) ?? 0) + 1);
  });

  test('of all kinds', () => {
    console.log(
      `verdicts of QEMU/Downfold: ${[...tally].map(([pair, count]) => `${pair} ${count}`).join(', ')}`,
    );
  });
});
