import type { Export } from '../src/index.ts';

/** An export that notes every call that the contract promises will not come. */
export function strict(of: Export, violations: string[]): Export {
  const check = (call: string, offset: number, length: number, most = of.size) => {
    const { minimum } = of.blockSize;
    const whole = (value: number) => Number.isSafeInteger(value) && value % minimum === 0;
    const fits = offset >= 0 && length > 0 && offset + length <= of.size && length <= most;
    if (!whole(offset) || !whole(length) || !fits) violations.push(`${call} ${offset} ${length}`);
  };
  const changes = (call: string) => {
    if (of.readOnly) violations.push(`${call} of a read-only export`);
  };
  const can = (call: string, ability: boolean) => {
    if (!ability) violations.push(`${call}, which is not supported`);
  };
  const { maximumPayload } = of.blockSize;
  return {
    size: of.size,
    readOnly: of.readOnly,
    description: of.description,
    blockSize: of.blockSize,
    supports: of.supports,
    contexts: of.contexts,
    direct: of.direct,
    read: (offset, target) => {
      check('read', offset, target.length, maximumPayload);
      return of.read(offset, target);
    },
    write: (offset, source, options) => {
      changes('write');
      check('write', offset, source.length, maximumPayload);
      return of.write(offset, source, options);
    },
    writeZeroes: (offset, length, options) => {
      changes('writeZeroes');
      can('a fast zero', of.supports.fastZero || !options.fast);
      check('writeZeroes', offset, length);
      return of.writeZeroes(offset, length, options);
    },
    trim: (offset, length, options) => {
      changes('trim');
      can('trim', of.supports.trim);
      check('trim', offset, length);
      return of.trim(offset, length, options);
    },
    flush: () => of.flush(),
    cache: (offset, length, options) => {
      can('cache', of.supports.cache);
      check('cache', offset, length);
      return of.cache(offset, length, options);
    },
    blockStatus: (context, offset, length, limit, options) => {
      if (!of.contexts.includes(context) || limit < 1) violations.push(`status of ${context}`);
      check('blockStatus', offset, length);
      return of.blockStatus(context, offset, length, limit, options);
    },
  };
}
