import { journalPath } from '@downfold/commit';
import type { Draw } from '../tools/draw.ts';
import { anyMoment, lifeOf, shortened } from './moment.ts';
import { killChain } from './template.ts';
import { commitArguments, type KillFigures, tryKill } from './trial.ts';

/** What a number of kills showed. */
export interface RoundFigures {
  readonly kills: number;
  readonly undisturbedMilliseconds: number;
  readonly found: Readonly<Record<KillFigures['state'], number>>;
  /** Most that a resumed run copied in all; bytes. */
  readonly mostCopiedAgain: number;
  readonly mostSkipped: number;
  readonly failures: readonly string[];
}

/** Makes one chain in `directory` and kills its commit `kills` times, each time from the start. */
export async function killRound(
  directory: string,
  how: { readonly kills: number; readonly mebibytes: number; readonly from: Draw },
): Promise<RoundFigures> {
  const chain = await killChain(directory, how.mebibytes);
  const journal = journalPath(chain.active);
  let life = await lifeOf(commitArguments(chain), journal, chain.restore);
  const found = { 'not-begun': 0, interrupted: 0, done: 0 };
  const failures: string[] = [];
  let [mostCopiedAgain, mostSkipped] = [0, 0];
  for (let kill = 0; kill < how.kills; kill += 1) {
    try {
      const figures = await tryKill(chain, anyMoment(how.from, life, journal));
      found[figures.state] += 1;
      life = shortened(life, figures.journal);
      if (figures.state === 'interrupted')
        mostCopiedAgain = Math.max(mostCopiedAgain, figures.bytesCopiedAgain);
      mostSkipped = Math.max(mostSkipped, figures.bytesSkipped);
    } catch (error) {
      failures.push(`kill ${kill}: ${(error as Error).message}`);
    }
  }
  const undisturbedMilliseconds = Math.round(life.total);
  return {
    kills: how.kills,
    undisturbedMilliseconds,
    found,
    mostCopiedAgain,
    mostSkipped,
    failures,
  };
}
