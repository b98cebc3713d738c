import { parseArgs } from 'node:util';

/** What one run of the benchmark does. */
export interface BenchOptions {
  /** Timed pairs per scenario. */
  readonly pairs: number;
  /** Mebibytes of allocated data per scenario. */
  readonly mebibytes: number;
  /** A pair during which others took more than this share of the CPU time, 0 to 1, is measured again. */
  readonly noise: number;
  /** Where the chains are made; a directory on the file system to measure. */
  readonly directory: string | null;
  /** Writes the table into docs/performance.md. */
  readonly updateDocs: boolean;
  /** Only shows that everything runs; figures mean nothing. */
  readonly smoke: boolean;
}

/** Reads the command line. @throws TypeError for what it does not know. */
export function parseOptions(args: readonly string[]): BenchOptions {
  const { values } = parseArgs({
    args: args.filter((arg) => arg !== '--'),
    options: {
      pairs: { type: 'string', default: '9' },
      size: { type: 'string', default: '1024' },
      noise: { type: 'string', default: '100' },
      dir: { type: 'string' },
      'update-docs': { type: 'boolean', default: false },
      smoke: { type: 'boolean', default: false },
    },
  });
  const count = (text: string, name: string): number => {
    const value = Number(text);
    if (Number.isSafeInteger(value) && value > 0) return value;
    throw new TypeError(`--${name} is '${text}', not a whole number above 0`);
  };
  return {
    pairs: values.smoke ? 1 : count(values.pairs, 'pairs'),
    mebibytes: values.smoke ? 16 : count(values.size, 'size'),
    noise: count(values.noise, 'noise') / 100,
    directory: values.dir ?? null,
    updateDocs: values['update-docs'],
    smoke: values.smoke,
  };
}
