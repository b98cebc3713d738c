import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { SABOTAGES } from '../src/served/sabotage.ts';

// The long tier tries them: here only that each still fits its file, which is changed more often than that tier is run.
test.each(SABOTAGES)('the sabotage fits: $name', ({ file, changes }) => {
  const text = readFileSync(new URL(`../../../${file}`, import.meta.url), 'utf8');
  for (const [found] of changes) expect(text.split(found).length, found).toBe(2);
});
