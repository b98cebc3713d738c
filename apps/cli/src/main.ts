import { watchResult } from './lost-result.ts';
import { stdout } from './output/streams.ts';
import { VERSION } from './version.ts';

const args = process.argv.slice(2);
watchResult(args);
if (args.length === 1 && (args[0] === '-V' || args[0] === '--version'))
  stdout().write(`downfold version ${VERSION}\n`);
else {
  const { run } = await import('./program.ts');
  process.exitCode = await run(args);
}
