import { readdirSync, readFileSync } from 'node:fs';
import { talk, withinASecond } from '@downfold/compliance';
import { expect, it } from 'vitest';
import { badAnswer } from './fuzz/qmp.ts';
import { contentsOf, expectServes, serve } from './fuzz/server.ts';
import { Bench, bytesOf } from './support.ts';

/** An input that did harm to some server, be it this one: what `fuzz` finds gets a file here, with the reason. */
interface Harmful {
  readonly protocol: 'nbd' | 'qmp';
  readonly because: string;
  readonly pieces: readonly {
    readonly hex?: string;
    readonly text?: string;
    readonly times?: number;
  }[];
}

const directory = new URL('corpus/', import.meta.url);

it('inputs that did harm elsewhere do none here', async () => {
  await using bench = new Bench();
  const server = await serve(bench);
  const files = (): number => readdirSync(`/proc/${server.pid}/fd`).length;
  const before = files();
  for (const name of readdirSync(directory)) {
    const harmful: Harmful = JSON.parse(readFileSync(new URL(name, directory), 'utf8'));
    const pieces = harmful.pieces.map(({ hex, text = '', times = 1 }) =>
      hex === undefined ? Buffer.from(text.repeat(times), 'latin1') : Buffer.from(hex, 'hex'),
    );
    const heard = await withinASecond(
      talk(bench.file(`run/${harmful.protocol}.sock`), pieces),
    ).catch((cause) => expect.fail(`${name}: ${cause}`));
    if (harmful.protocol === 'qmp') expect(badAnswer(heard), name).toBeNull();
  }
  await expect.poll(files).toBeLessThanOrEqual(before);
  expect((await contentsOf(bench, 'disk')).equals(bytesOf('disk-base', 0))).toBe(true);
  await expectServes(bench, server);
});
