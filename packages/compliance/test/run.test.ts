import { describe, expect, test } from 'vitest';
import {
  applies,
  assertSameBytes,
  type ComplianceCase,
  caseContext,
  killers,
  runCase,
  verify,
} from '../src/index.ts';

interface Counter {
  add(by: number): number;
}
type Ability = 'negative';

const kit: readonly ComplianceCase<Counter, Ability>[] = [
  {
    id: 'add/sums',
    because: 'callers add',
    run: async (counter, { integer }) => {
      const [a, b] = [integer(100), integer(100)];
      counter.add(a);
      if (counter.add(b) !== a + b) throw new Error('wrong sum');
    },
  },
  {
    id: 'add/negative',
    because: 'some subtract',
    needs: ['negative'],
    run: async (counter) => {
      if (counter.add(-2) !== -2) throw new Error('wrong difference');
    },
  },
  {
    id: 'add/negative-refused',
    because: 'an absent ability is loud',
    whenAbsent: 'negative',
    run: async (counter) => {
      let refused = false;
      try {
        counter.add(-1);
      } catch {
        refused = true;
      }
      if (!refused) throw new Error('accepted');
    },
  },
];

function counter(step: number): Counter {
  let sum = 0;
  return {
    add: (by) => {
      if (by < 0) throw new RangeError('negative');
      sum += by * step;
      return sum;
    },
  };
}

describe('a kit', () => {
  test('runs the cases whose abilities fit, and tests the refusal of the rest', async () => {
    const names: string[] = [];
    const bodies: (() => Promise<void>)[] = [];
    verify(kit, { abilities: new Set(), create: async () => counter(1) }, (name, body) => {
      names.push(name);
      bodies.push(body);
    });
    expect(names).toEqual(['add/sums', 'add/negative-refused']);
    for (const body of bodies) await body();
    expect(applies(kit[1] as ComplianceCase<Counter, Ability>, new Set(['negative']))).toBe(true);
  });

  test('names the case, the seed and the reason when a subject breaks it', async () => {
    const broken = { abilities: new Set<Ability>(), create: async () => counter(2) };
    await expect(runCase(kit[0] as ComplianceCase<Counter, Ability>, broken, 42)).rejects.toThrow(
      /add\/sums \(seed 42\): wrong sum\n {2}because callers add/,
    );
  });

  test('tells which cases kill a mutant, and that none does', async () => {
    const abilities = new Set<Ability>();
    expect(await killers(kit, { abilities, create: async () => counter(2) })).toEqual(['add/sums']);
    expect(await killers(kit, { abilities, create: async () => counter(1) })).toEqual([]);
  });

  test('closes the subject, also after a failure', async () => {
    let closed = 0;
    const create = async () => ({
      ...counter(2),
      [Symbol.asyncDispose]: async () => void closed++,
    });
    await killers(kit, { abilities: new Set<Ability>(), create });
    expect(closed).toBe(2);
  });

  test('draws the same values from the same seed', () => {
    expect(caseContext(7).bytes(16)).toEqual(caseContext(7).bytes(16));
    expect(caseContext(7).bytes(16)).not.toEqual(caseContext(8).bytes(16));
  });
});

test('bytes that differ are reported by the first place where they do', () => {
  const bytes = caseContext(1).bytes(100_000);
  expect(() => assertSameBytes(bytes, bytes.slice(), 'copy')).not.toThrow();
  const other = bytes.slice();
  other[70_000] = 1 + (other[70_000] ?? 0);
  expect(() => assertSameBytes(bytes, other, 'copy')).toThrow('copy: byte 70000 is ');
  expect(() => assertSameBytes(bytes, bytes.subarray(1), 'copy')).toThrow(
    'copy: 100000 bytes, expected 99999',
  );
});
