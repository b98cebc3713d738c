import type { GuestRange } from '@downfold/units';
import { DeviceError } from './errors.ts';

/** A range of the active layer that a request changed. */
export interface Change extends GuestRange {
  readonly kind: 'write' | 'zero' | 'discard';
  /** The new bytes of a write; null: it failed, or it was none. Not to be kept. */
  readonly source: Uint8Array | null;
  /** The request failed on the way: old bytes, new ones or both may be there. */
  readonly failed: boolean;
}

/**
 * Is told of every changed range after the active layer changed and before the request is acknowledged. While it is told no other change of
 * these bytes begins, so those of the same bytes come one after the other, in order. It uses images: a request of its own could wait for itself.
 * - `note`: writes it down at once. Must not throw.
 * - `block`: the request waits for the promise. When that rejects, `fail-request`: the request rejects with `DEVICE_OBSERVER_FAILED`, and
 *   the next ones go on to be told; `detach`: the request does not notice, `detached` gets the cause, and nothing is told any more.
 */
export type WriteObserver =
  | { readonly mode: 'note'; noted(change: Change): void }
  | {
      readonly mode: 'block';
      readonly onFailure: 'fail-request';
      changed(change: Change): Promise<void>;
    }
  | {
      readonly mode: 'block';
      readonly onFailure: 'detach';
      changed(change: Change): Promise<void>;
      detached(cause: unknown): void;
    };

/** The observers of one disk. */
export class Observers {
  readonly #all: Set<WriteObserver> = new Set();

  add(observer: WriteObserver): () => void {
    this.#all.add(observer);
    return () => this.#all.delete(observer);
  }

  /** Tells all of them. Null: nobody is waited for. Resolves, when all have settled, with what the request has to fail with. */
  tell(change: Change): Promise<DeviceError | null> | null {
    if (this.#all.size === 0) return null;
    const waits: Promise<DeviceError | null>[] = [];
    for (const observer of this.#all)
      if (observer.mode === 'note') observer.noted(change);
      else waits.push(this.#waitFor(observer, change));
    return waits.length === 0 ? null : Promise.all(waits).then(firstFailure);
  }

  async #waitFor(
    observer: WriteObserver & { readonly mode: 'block' },
    change: Change,
  ): Promise<DeviceError | null> {
    try {
      await observer.changed(change);
      return null;
    } catch (cause) {
      if (observer.onFailure === 'fail-request') return refusal(change, cause);
      // a second change that failed meanwhile tells nothing new
      if (this.#all.delete(observer)) observer.detached(cause);
      return null;
    }
  }
}

function firstFailure(outcomes: readonly (DeviceError | null)[]): DeviceError | null {
  return outcomes.find((outcome) => outcome !== null) ?? null;
}

function refusal({ offset, length }: Change, cause: unknown): DeviceError {
  const why = cause instanceof Error ? cause.message : String(cause);
  return new DeviceError(
    'DEVICE_OBSERVER_FAILED',
    `${length} bytes at ${offset} are written, but not where else they have to be: ${why}`,
    { offset, length },
    cause,
  );
}
