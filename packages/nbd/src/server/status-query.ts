import type { Request } from '../codec/request.ts';
import { readU64 } from '../codec/words.ts';
import type { Session } from './haggling.ts';
import type { Refusal } from './refusal.ts';

/** What a block status request is about. */
export interface StatusQuery {
  readonly length: number;
  /** Contexts to answer for, by id. */
  readonly contexts: ReadonlyMap<number, string>;
  readonly refused: Refusal | null;
}

const INVALID: Refusal = { errno: 'EINVAL', reason: 'the payload is no choice of contexts' };

/** All chosen contexts, or those that the payload of an extended request picks from them. */
export function statusQuery({ payload, length }: Request, { contexts }: Session): StatusQuery {
  if (payload === null) return { length, contexts, refused: null };
  const refused: StatusQuery = { length, contexts, refused: INVALID };
  const count = (payload.length - 8) / 4;
  if (!Number.isInteger(count) || count < 1 || count > contexts.size) return refused;
  const picked = new Map<number, string>();
  for (let index = 0; index < count; index++) {
    const id = payload.readUInt32BE(8 + 4 * index);
    const name = contexts.get(id);
    if (name === undefined || picked.has(id)) return refused;
    picked.set(id, name);
  }
  return { length: readU64(payload, 0), contexts: picked, refused: null };
}
