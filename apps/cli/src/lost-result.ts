import { printError } from './output/print.ts';
import { endWithReader, lostResult } from './output/streams.ts';

/** Commands whose work is to tell something; others have done theirs when it cannot be told. */
const TELLING: ReadonlySet<string | undefined> = new Set([
  '-V',
  '--version',
  'version',
  'info',
  'map',
  'graph',
  'measure',
  'completion',
]);
/** As they are here, any command only tells. */
const ONLY_TELLS = ['-h', '--help', '--dry-run'];

/** Says at the end that results could not be printed; with them a command has failed whose work they are. */
export function watchResult(args: readonly string[]): void {
  if (endsWithReader(args)) endWithReader();
  process.once('exit', (exitCode) => {
    const cause = lostResult();
    if (cause === null) return;
    printError(`downfold: Could not print the result: ${cause.message}`);
    if (exitCode === 0 && onlyTells(args)) process.exitCode = 1;
  });
}

/** Whether these words ask for nothing that would have to be brought to an end here: what `ctl` asks for the server does. */
function endsWithReader(args: readonly string[]): boolean {
  return args[0] === 'ctl' || tellsAsItIs(args);
}

function tellsAsItIs(args: readonly string[]): boolean {
  return TELLING.has(args[0]) || args.some((word) => ONLY_TELLS.includes(word));
}

function onlyTells(args: readonly string[]): boolean {
  if (tellsAsItIs(args)) return true;
  const [verb] = args;
  // the exit code tells the rest
  if (verb === 'check') return asksJson(args);
  if (verb === 'snapshot')
    return !args.some((word) => /^(-[acd]|--(apply|create|delete))/.test(word));
  return verb === 'ctl' && ['jobs', 'nodes', 'watch', 'raw'].includes(args[1] ?? '');
}

/** Whether these words ask for JSON. */
export function asksJson(args: readonly string[]): boolean {
  return args.includes('--output=json') || args[args.indexOf('--output') + 1] === 'json';
}
