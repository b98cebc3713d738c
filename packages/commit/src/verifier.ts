import type { NodeId } from '@downfold/chain';
import type { CowSource } from '@downfold/image';
import { byteLength } from '@downfold/units';
import type { Layers } from './layers.ts';
import type { RunOptions } from './parts.ts';
import { type CommitPlan, pathOf } from './plan.ts';
import type { ChainView } from './strategy.ts';
import { type Claim, compareRange, zeros } from './verify.ts';
import { wholeOf } from './view.ts';

/** What a verifier looks at. */
export interface VerifierParts {
  readonly layers: Layers;
  readonly view: ChainView;
  readonly plan: CommitPlan;
  readonly options: RunOptions;
}

/** Compares what was written with where it came from, when the user wants that. */
export class Verifier {
  verified = false;
  readonly #parts: VerifierParts;
  /** What a node shows, with what is staged on it. */
  readonly #shown: (node: NodeId) => CowSource;
  /** What was written since the last comparison, when sources do not stay. */
  #claims: Claim[] = [];

  constructor(parts: VerifierParts, shown: (node: NodeId) => CowSource) {
    this.#parts = parts;
    this.#shown = shown;
  }

  /** Whether it wants to hear of what is written. */
  get notes(): boolean {
    return this.#parts.options.verify === true && !this.#sourcesStay();
  }

  /** Something is about to be written. */
  note(claim: Claim): void {
    if (this.notes) this.#claims.push(claim);
  }

  /** Whether what was committed can still be read where it came from: then all of it is compared at once, an earlier run's too. */
  #sourcesStay(): boolean {
    const { request, reads } = this.#parts.plan;
    return request.operation === 'commit' && reads.includes(request.top);
  }

  async verify(): Promise<void> {
    if (this.#parts.options.verify !== true) return;
    if (!this.#sourcesStay()) return this.#verifyClaims();
    if (this.verified) return;
    const { layers, view, plan, options } = this.#parts;
    const base = plan.request.base as NodeId;
    const { top } = plan.request;
    const ofBase = this.#held(base, this.#shown(base));
    const ofTop = this.#held(top, layers.view(top));
    const names = { foundName: pathOf(plan, base), wantedName: pathOf(plan, top) };
    const total = plan.bytesToCopy + plan.bytesToZero;
    let done = 0;
    const onPiece = (bytes: number): void => {
      done += bytes;
      options.onProgress?.({ phase: 'verify', done, total });
    };
    const range = wholeOf(layers.get(top).facts);
    for await (const batch of view.extentsAbove({ base, top }, range, options))
      for (const extent of batch)
        if (extent.owner !== null)
          await compareRange(
            { found: ofBase, wanted: ofTop, ...names },
            extent,
            onPiece,
            options.signal,
          );
    this.verified = true;
  }

  /** The same, while no other job beneath a disk in use changes how what lies below is stored. */
  #held(node: NodeId, source: CowSource): CowSource {
    const { layers } = this.#parts;
    return (offset, target) =>
      layers.holding(node, { offset, length: byteLength(target.length) }, () =>
        source(offset, target),
      );
  }

  /** Where to read what a claim is about, and what it must be. */
  #sidesOf({ node, from, over }: Claim): { readonly found: CowSource; readonly wanted: CowSource } {
    const { layers } = this.#parts;
    const contentOf =
      (layer: NodeId, below: CowSource | null): CowSource =>
      (at, target) =>
        layers.get(layer).image.read(at, target, below);
    if (over === undefined)
      return { found: this.#shown(node), wanted: from === null ? zeros : contentOf(from, null) };
    return {
      found: contentOf(node, over === null ? null : layers.view(over)),
      // it left that to what lies below it, as long as it does
      wanted: layers.below(node) ?? zeros,
    };
  }

  /** Reads back what was written since the last time, while what it came from is still there. */
  async #verifyClaims(): Promise<void> {
    const { plan, options } = this.#parts;
    const claims = this.#claims;
    this.#claims = [];
    for (const claim of claims) {
      const { node, range, from } = claim;
      const { found, wanted } = this.#sidesOf(claim);
      await compareRange(
        {
          found: this.#held(node, found),
          wanted,
          foundName: pathOf(plan, node),
          wantedName: from === null ? 'zeros' : pathOf(plan, from),
        },
        range,
        () => undefined,
        options.signal,
      );
    }
    this.verified = true;
  }
}
