import { type BackendDriver, openBackend } from '@downfold/storage';
import { memoryBackendDriver } from '@downfold/storage-memory';
import { expect, test } from 'vitest';
import { engineOn, prepare } from '../src/crash/case.ts';
import { STRATEGIES, scenarioOf } from '../src/crash/scenario.ts';

/** A driver that writes no byte of data to one file as it was; `struck` when it does. */
function spoiling(driver: BackendDriver, spoilt: string, struck: () => void): BackendDriver {
  return {
    ...driver,
    open: async (path, mode) => {
      const file = await driver.open(path, mode);
      if (path !== spoilt) return file;
      const write = file.write.bind(file);
      return Object.assign(file, {
        // what is copied is written then
        copyFrom: async () => 0,
        write: async (offset: never, source: Uint8Array, what: string) => {
          if (what !== 'data') return await write(offset, source, what);
          struck();
          await write(
            offset,
            source.map((byte) => ~byte),
            what,
          );
        },
      });
    },
  };
}

// That a verification reads back what was written, whatever way a strategy has of writing; and that a job which fails it can still be given up.
test.each(STRATEGIES)(
  '%s verified: what was written wrongly is found in time',
  async (strategy) => {
    let found = 0;
    for (let seed = 1; found < 10; seed++) {
      const one = await prepare(scenarioOf(strategy, seed));
      if (typeof one === 'string') continue;
      const { images, request } = one.plan;
      const written = request.operation === 'commit' ? request.base : request.top;
      const path = images.find(({ node }) => node === written)?.path ?? '';
      const disk = one.disk.copy();
      let isSpoilt = false;
      const driver = spoiling(memoryBackendDriver(disk), path, () => {
        isSpoilt = true;
      });
      const outcome = await engineOn(openBackend(driver), 1)
        .run(one.plan, { ...one.options, verify: true })
        .catch((cause) => cause);
      if (!isSpoilt) continue;
      expect([seed, outcome]).toMatchObject([seed, { code: 'COMMIT_VERIFY_FAILED' }]);
      await engineOn(openBackend(memoryBackendDriver(disk)), 2).abort(one.request.file);
      expect([seed, disk.names.has(one.journal)]).toEqual([seed, false]);
      found++;
    }
  },
);
