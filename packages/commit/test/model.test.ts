import { expect, it } from 'vitest';
import { dataCell } from '../src/compliance/cells.ts';
import { Disks, type Write } from '../src/compliance/disks.ts';
import { Durability } from '../src/compliance/durability.ts';
import { UNBEGUN } from '../src/compliance/model-journal.ts';

/** One image of six sectors, with nothing in it. */
function empty(): Durability {
  const disks = new Disks(6, 1);
  disks.setSize(0, 6);
  return new Durability(disks, UNBEGUN);
}

/** Sector `start` becomes data. */
function write(start: number): Write {
  return { image: 0, row: 0, start, cells: [dataCell(start + 1)], inPlace: false };
}

/** What every crash that can happen now, and could not before, leaves: content by sector, and the cursor. */
function crashes(model: Durability, most = 8): string[] {
  return [...model.crashes(most)]
    .map(({ disks, journal }) => `${disks.shown(0).join('')}${journal.cursor?.['at'] ?? ''}`)
    .sort();
}

it('a crash keeps any set of what was written since the last barrier, and each state is told once', () => {
  const model = empty();
  expect(crashes(model)).toEqual(['000000']);
  model.write(write(0));
  expect(crashes(model)).toEqual(['100000']);
  model.write(write(1));
  model.write(write(2));
  expect(crashes(model)).toEqual(['003000', '020000', '023000', '103000', '120000', '123000']);
  expect(crashes(model)).toEqual([]);
});

it('what was flushed is not lost any more', () => {
  const model = empty();
  model.write(write(0));
  expect(crashes(model)).toEqual(['000000', '100000']);
  model.flush(new Set([0]));
  expect(crashes(model)).toEqual([]);
  model.write(write(1));
  expect(crashes(model)).toEqual(['120000']);
});

it('a record that comes later is there only with all that was written before it', () => {
  const model = empty();
  model.write(write(0));
  crashes(model);
  model.noteLater({ cursor: { at: 'x' } });
  expect(crashes(model)).toEqual(['100000x']);
  model.write(write(1));
  expect(crashes(model)).toEqual(['020000', '120000', '120000x']);
  model.settle();
  expect(crashes(model)).toEqual([]);
  model.write(write(2));
  expect(crashes(model)).toEqual(['103000x', '123000x']);
});

it('with more writes than asked for, a crash loses none, all, one, or all but one', () => {
  const model = empty();
  for (const start of [0, 1, 2, 3]) model.write(write(start));
  expect(crashes(model, 3)).toEqual(
    [
      '000000',
      '123400',
      '100000',
      '020000',
      '003000',
      '000400',
      '023400',
      '103400',
      '120400',
      '123000',
    ].sort(),
  );
});

it('a sector within a unit comes to nothing without the unit', () => {
  const model = empty();
  model.write({ ...write(0), cells: [dataCell(1), dataCell(2)] });
  model.write({ ...write(1), cells: [dataCell(7)], inPlace: true });
  expect(crashes(model)).toEqual(['000000', '000000', '120000', '170000']);
});
