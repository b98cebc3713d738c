import { parseArgs } from 'node:util';

/** What one run of the benchmark does. */
export interface BenchOptions {
  /** Timed pairs per row. */
  readonly pairs: number;
  /** A pair during which others took more than this share of the CPU time, 0 to 1, is measured again. */
  readonly noise: number;
  /** Rows whose name matches; null: all. */
  readonly only: RegExp | null;
  /** Only names the rows. */
  readonly list: boolean;
  /** Where files are made; a directory on the file system to measure. */
  readonly directory: string | null;
  /** Writes the table into docs/performance.md. */
  readonly updateDocs: boolean;
  /** Small files, one pair: only shows that everything runs; figures mean nothing. */
  readonly smoke: boolean;
}

/** Reads the command line. @throws TypeError for what it does not know. */
export function parseOptions(args: readonly string[]): BenchOptions {
  const { values } = parseArgs({
    args: args.filter((arg) => arg !== '--'),
    options: {
      pairs: { type: 'string', default: '9' },
      noise: { type: 'string', default: '100' },
      only: { type: 'string' },
      list: { type: 'boolean', default: false },
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
    noise: count(values.noise, 'noise') / 100,
    only: values.only === undefined ? null : new RegExp(values.only),
    list: values.list,
    directory: values.dir ?? null,
    updateDocs: values['update-docs'],
    smoke: values.smoke,
  };
}
