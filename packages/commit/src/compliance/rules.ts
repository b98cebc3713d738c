import type { Operation } from '../plan.ts';

/** What a rule needs of a strategy: what its operation is, or that it can keep what siblings read; that it pivots; that it goes on after a crash where it was. */
export type StrategyAbility = Operation | 'keeps-siblings' | 'pivots' | 'goes-on';

/** One thing that every strategy must hold in every setting and every crash state. */
interface Rule {
  readonly because: string;
  readonly needs?: readonly StrategyAbility[];
}

/** Id of a rule, and of its case. */
export type RuleId =
  | 'plan/can-be-made'
  | 'plan/refuses-by-code'
  | 'plan/is-plain-json'
  | 'plan/promises-top-and-overlays'
  | 'plan/names-who-is-lost'
  | 'plan/keeps-siblings'
  | 'plan/relinks-overlays-and-top'
  | 'plan/counts-the-cases'
  | 'plan/counts-what-is-moved'
  | 'plan/costs-are-upper-bounds'
  | 'plan/reads-stay-while-needed'
  | 'steps/never-throw'
  | 'steps/deterministic'
  | 'steps/only-planned-images'
  | 'steps/within-the-disks'
  | 'steps/copies-what-is-held'
  | 'steps/in-any-order'
  | 'steps/only-what-formats-can'
  | 'order/relink-after-barrier'
  | 'order/publish-after-barrier'
  | 'order/retire-after-invalidate'
  | 'order/pivot-after-barrier'
  | 'crash/preserved-images-read-as-before'
  | 'crash/nobody-else-changes'
  | 'crash/images-read-as-before-until-invalidated'
  | 'crash/base-reads-as-before-until-invalidated'
  | 'crash/nobody-reads-through-the-retired'
  | 'crash/the-disk-shows-what-was-written'
  | 'end/base-shows-what-top-showed'
  | 'end/base-keeps-its-tail'
  | 'end/linked-as-planned'
  | 'end/the-invalid-are-marked'
  | 'end/top-is-empty'
  | 'end/the-disk-pivoted'
  | 'resume/comes-to-the-same-end'
  | 'resume/copies-only-what-is-left'
  | 'resume/loses-no-more-than-a-checkpoint';

/** All rules. Sources: `step.ts`, `plan.ts`, and facts on crash safety (F). */
export const rules: Readonly<Record<RuleId, Rule>> = {
  'plan/can-be-made': { because: 'a strategy that refuses everything breaks no rule' },
  'plan/refuses-by-code': {
    because: 'auto and the command line tell "cannot" from "broken" by COMMIT_UNSUPPORTED',
  },
  'plan/is-plain-json': {
    because: 'a plan is stored in the journal and read again by another process',
  },
  'plan/promises-top-and-overlays': {
    because: 'top, what lies above it and what lies below base stay valid whatever happens (F 2.4)',
  },
  'plan/names-who-is-lost': {
    because: 'people decide by the lists of who is preserved, invalidated and stranded',
  },
  'plan/keeps-siblings': {
    because: 'with siblings: keep nobody outside the chain may lose its meaning',
    needs: ['keeps-siblings'],
  },
  'plan/relinks-overlays-and-top': {
    because: 'every overlay of top, and top itself, must read through base afterwards',
  },
  'plan/counts-the-cases': {
    because: 'the plan shows bytes per allocation case (design, section 4)',
    needs: ['commit'],
  },
  'plan/counts-what-is-moved': {
    because: 'progress, estimates and the choice of auto rest on bytesToCopy and bytesToZero',
  },
  'plan/costs-are-upper-bounds': {
    because: 'the room that a job needs is promised for each file',
  },
  'plan/reads-stay-while-needed': {
    because: 'resume refuses when an image of plan.reads changed before a cursor said complete',
  },
  'steps/never-throw': { because: 'whatever survived a crash, a strategy has steps that lead on' },
  'steps/deterministic': { because: 'the same plan, cursor and images must give the same steps' },
  'steps/only-planned-images': { because: 'other images are not open, not locked, not checked' },
  'steps/within-the-disks': { because: 'nothing can be read or written past the end of an image' },
  'steps/copies-what-is-held': {
    because:
      'copy moves bytes that lie in a file: where there is no data, there is foreign content',
  },
  'steps/in-any-order': { because: 'copies between two barriers run in parallel' },
  'steps/only-what-formats-can': {
    because: 'formats reject what they cannot do, and what a staging forbids',
  },
  'order/relink-after-barrier': {
    because: 'QEMU relinks first and loses data: what shows through must be durable before (F 0.1)',
  },
  'order/publish-after-barrier': {
    because: 'what is published must be durable before',
    needs: ['commit'],
  },
  'order/retire-after-invalidate': {
    because: 'the journal knows who lost its meaning before a mark says so',
    needs: ['commit'],
  },
  'order/pivot-after-barrier': {
    because: 'base is the disk from the pivot on: what it shows must be durable before (F 2.7)',
    needs: ['pivots'],
  },
  'crash/preserved-images-read-as-before': {
    because: 'the promise of plan.preserves, in every crash state (F 2.3)',
  },
  'crash/nobody-else-changes': {
    because: 'an image that the plan does not mention has nothing to fear',
  },
  'crash/images-read-as-before-until-invalidated': {
    because: 'an image means something until the journal says otherwise (F 2.5, P3)',
    needs: ['commit'],
  },
  'crash/base-reads-as-before-until-invalidated': {
    because: 'a job that is given up marks what became a mixture, and nothing else',
    needs: ['commit'],
  },
  'crash/nobody-reads-through-the-retired': {
    because: 'Downfold refuses to open a chain through an image that is marked',
    needs: ['commit'],
  },
  'crash/the-disk-shows-what-was-written': {
    because:
      'before a pivot and after it the disk shows what its clients were told is written (F 2.7)',
    needs: ['pivots'],
  },
  'end/base-shows-what-top-showed': { because: 'that is what a commit is', needs: ['commit'] },
  'end/base-keeps-its-tail': {
    because: 'base is never shrunk, and past top only what longer overlays read is zeroed (F 2.2)',
    needs: ['commit'],
  },
  'end/linked-as-planned': { because: 'the plan says which references are rewritten' },
  'end/the-invalid-are-marked': {
    because: 'QEMU leaves no trace that images lost their meaning (F 0.4)',
    needs: ['commit'],
  },
  'end/top-is-empty': {
    because: 'emptyTop asks for it, as qemu-img commit does',
    needs: ['commit'],
  },
  'end/the-disk-pivoted': {
    because: 'that is what the commit of an active layer is for',
    needs: ['pivots'],
  },
  'resume/comes-to-the-same-end': {
    because: 'a job that was killed at any instruction is finished by resume',
  },
  'resume/copies-only-what-is-left': {
    because: 'what a durable checkpoint covers is not copied again',
    needs: ['goes-on'],
  },
  'resume/loses-no-more-than-a-checkpoint': {
    because: 'checkpointBytes is what a crash may cost to copy again, at most',
    needs: ['goes-on'],
  },
};
