import { execFileSync } from 'node:child_process';
import { expect, it } from 'vitest';

const INDEX = new URL('../src/index.ts', import.meta.url).href;

/** How a function that is called often ends up compiled: bit 5 of `%GetOptimizationStatus` says by Maglev (V8 13). */
const HOT = `
  function hot(a) { return a + 1; }
  %PrepareFunctionForOptimization(hot);
  hot(1);
  %OptimizeMaglevOnNextCall(hot);
  hot(1);
  console.log((%GetOptimizationStatus(hot) >> 5 & 1) === 1);
`;

/** Whether V8 compiles with Maglev in a process that began so. */
function usesMaglev(begin: string): string {
  const script = `${begin}; (0, eval)(${JSON.stringify(HOT)});`;
  const flags = ['--allow-natives-syntax', '--conditions=@downfold/source', '--input-type=module'];
  return execFileSync(process.execPath, [...flags, '-e', script], { encoding: 'utf8' }).trim();
}

it('Maglev compiles nothing once it is turned off', () => {
  expect(usesMaglev('')).toBe('true');
  expect(usesMaglev(`(await import('${INDEX}')).withoutMaglev()`)).toBe('false');
});
