import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { type Ended, type RunOptions, run } from './process.ts';

/** The command line as users start it: built, not from source. */
export const CLI: string = fileURLToPath(new URL('../../../cli/bin/downfold.js', import.meta.url));

/** Environment of every start: no certificates to load, no colours. */
const QUIET = { NODE_EXTRA_CA_CERTS: undefined, NODE_OPTIONS: undefined, NO_COLOR: '1' };

/** Runs `downfold ARGS` to its end. Rejects when the command line was not built. */
export function downfold(args: readonly string[], options: RunOptions = {}): Promise<Ended> {
  const built = fileURLToPath(new URL('../../../cli/dist/main.js', import.meta.url));
  if (!existsSync(built)) throw new Error(`${built} is not there: run \`pnpm build\` first`);
  return run(process.execPath, [CLI, ...args], { ...options, env: { ...options.env, ...QUIET } });
}

/** What `commit --output json` and `resume --output json` say, as far as trials look at it. */
export interface CommitResult {
  readonly bytesCopied: number;
  readonly bytesZeroed: number;
  readonly bytesSkippedByResume: number;
}

/** Runs a command that must succeed and print one JSON object. */
export async function downfoldJson<T>(
  args: readonly string[],
  options: RunOptions = {},
): Promise<T> {
  const ended = await downfold([...args, '--output', 'json'], options);
  if (ended.code !== 0)
    throw new Error(`downfold ${args.join(' ')}: exit ${ended.code}\n${ended.stderr}`);
  return JSON.parse(ended.stdout) as T;
}
