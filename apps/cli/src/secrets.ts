import {
  type GivenSecret,
  HostError,
  secretGiven,
  secretIn,
  secretInArgument,
} from '@downfold/host';
import type { ImageSecret } from '@downfold/image';
import { UsageError } from './failure.ts';
import { keyedParts } from './keyed-parts.ts';

/** A secret by the name that other options call it, as in QEMU. */
export interface NamedSecret {
  readonly id: string;
  readonly secret: ImageSecret;
}

/** Reads `--secret FILE` or `--secret IMAGE=FILE`, given once or more. @throws UsageError */
export function secretOption(
  value: string,
  before: readonly GivenSecret[] = [],
): readonly GivenSecret[] {
  return [...before, asUsage(() => secretGiven(value))];
}

/** Reads `--object secret,id=ID,file=FILE[,format=raw|base64]`, given once or more. @throws UsageError, which shows nothing of the value */
export function secretObject(
  value: string,
  before: readonly NamedSecret[] = [],
): readonly NamedSecret[] {
  const [[type] = [], ...parts] = keyedParts(value);
  const said = Object.fromEntries(parts);
  const { id, file, format } = said;
  if (type !== 'secret' && said['qom-type'] !== 'secret')
    throw new UsageError("--object: only 'secret,id=ID,file=FILE' is taken");
  if ('data' in said) throw new UsageError(secretInArgument().message);
  const unknown = Object.keys(said).find((key) => !OBJECT_KEYS.includes(key));
  if (unknown !== undefined) throw new UsageError(`--object secret: '${unknown}' is not taken`);
  if (id === undefined || file === undefined)
    throw new UsageError('--object secret: needs id=ID and file=FILE');
  if (before.some((one) => one.id === id))
    throw new UsageError(`--object secret: there are two of id '${id}'`);
  return [...before, { id, secret: asUsage(() => secretIn(file, format)) }];
}

const OBJECT_KEYS: readonly string[] = ['qom-type', 'id', 'file', 'format'];

/** The secret that an option refers to. @throws UsageError */
export function secretCalled(id: string, objects: readonly NamedSecret[] = []): ImageSecret {
  const found = objects.find((one) => one.id === id);
  if (found !== undefined) return found.secret;
  throw new UsageError(
    `No secret with id '${id}'; give it with '--object secret,id=${id},file=FILE'`,
  );
}

/** A secret that cannot be used is a mistake of the command line. */
function asUsage<T>(read: () => T): T {
  try {
    return read();
  } catch (cause) {
    throw cause instanceof HostError ? new UsageError(cause.message) : cause;
  }
}
