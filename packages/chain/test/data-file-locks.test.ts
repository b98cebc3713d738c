import { LOSER, READER, WRITER } from '@downfold/storage';
import { it } from 'vitest';
import { DataFileLocks } from '../src/index.ts';
import { diskOf, environmentOn, expectRefusal, plain } from './support.ts';

it('the lock of a data file is as strong as all need who have the image open', async () => {
  const disk = await diskOf({ '/d': plain });
  const environment = environmentOn(disk);
  const { backend } = environment;
  const locks = new DataFileLocks();
  const reader = await locks.hold('/d', '/image', READER, environment);
  const another = await backend.lock('/d', READER);
  // whoever else reads it is in a writer's way, and what is held stays
  await expectRefusal(locks.hold('/d', '/image', WRITER, environment), 'STORAGE_LOCKED', '/d');
  await another[Symbol.asyncDispose]();
  const [writer, twice] = await Promise.all([
    locks.hold('/d', '/image', WRITER, environment),
    locks.hold('/d', '/image', WRITER, environment),
  ]);
  await expectRefusal(backend.lock('/d', READER), 'STORAGE_LOCKED', '/d');
  await writer[Symbol.asyncDispose]();
  await writer[Symbol.asyncDispose]();
  await expectRefusal(backend.lock('/d', READER), 'STORAGE_LOCKED', '/d');
  await twice[Symbol.asyncDispose]();
  {
    await using _again = await backend.lock('/d', READER);
    await expectRefusal(backend.lock('/d', WRITER), 'STORAGE_LOCKED', '/d');
  }
  await reader[Symbol.asyncDispose]();
  await using _all = await backend.lock('/d', LOSER);
});

it('the data file of one image is no other one of this process', async () => {
  const environment = environmentOn(await diskOf({ '/d': plain }));
  const locks = new DataFileLocks();
  {
    await using _held = await locks.hold('/d', '/image', READER, environment);
    await expectRefusal(
      locks.hold('/d', '/twin', READER, environment),
      'CHAIN_SHARED_DATA',
      '/twin',
    );
  }
  await using _free = await locks.hold('/d', '/twin', READER, environment);
});
