import { writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { create, type Keys, writeKeys } from './encryption-support.ts';
import { bench } from './support.ts';

const keys: Keys = { 'disk.qcow2': 'k1' };

test('secrets: none, wrong ones, of some images alone; and they are never shown', () => {
  using work = bench();
  writeKeys(work);
  writeFileSync(work.file('base64'), Buffer.from('open sesame').toString('base64'));
  create(work, keys, 'disk.qcow2', null);
  create(work, keys, 'top.qcow2', 'disk.qcow2');
  const read = (...how: string[]) =>
    work.downfold('compare', ...how, 'top.qcow2', 'top.qcow2', '--output=json');
  expect(read().stdout).toContain('"IMAGE_SECRET_NEEDED"');
  expect(read('--secret', 'k2').stdout).toContain('"IMAGE_WRONG_SECRET"');
  expect(read('--secret', 'k1').code).toBe(0);
  expect(read('--secret', 'k2', '--secret', 'disk.qcow2=k1').code).toBe(0);
  expect(read('--secret', 'nowhere').stdout).toContain('"USAGE"');
  const image = 'driver=qcow2,encrypt.key-secret=a,file.filename=disk.qcow2';
  const opts = ['--image-opts', image, image];
  const encoded = 'secret,id=a,file=base64,format=base64';
  expect(work.downfold('compare', '--object', encoded, ...opts).code).toBe(0);
  expect(work.downfold('compare', ...opts).stderr).toContain("No secret with id 'a'");
  // nothing that needs no secret asks for one
  for (const verb of ['info', 'check']) expect(work.downfold(verb, 'disk.qcow2').code).toBe(0);
  expect(work.downfold('info', '--backing-chain', 'top.qcow2').code).toBe(0);
  expect(work.downfold('map', '--output=json', 'top.qcow2').code).toBe(0);
  for (const data of ['hush', 'hush,123', 'x,hush=1']) {
    const shown = work.downfold('info', '--object', `secret,id=a,data=${data}`, 'disk.qcow2');
    expect([shown.code, `${shown.stdout}${shown.stderr}`.includes('hush')]).toEqual([1, false]);
  }
  // Node would skip what is no base64, and try what is left
  writeFileSync(work.file('base64'), 'open sesame: no base64\n');
  expect(work.downfold('compare', '--object', encoded, ...opts).stderr).toContain(
    'what it holds is none',
  );
  // a job that cannot end does not begin
  const commit = work.downfold('commit', '--output=json', 'top.qcow2');
  expect(commit.stdout).toContain('"IMAGE_SECRET_NEEDED"');
});
