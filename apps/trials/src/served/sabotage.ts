import { FROM_SOURCE } from '../tools/from-source.ts';
import { COMMITS, type Kind } from './jobs.ts';

/** The server with one thing left out. */
export interface Sabotage {
  readonly name: string;
  /** Jobs whose kills show it. */
  readonly kinds: readonly Kind[];
  /** Source file, below the repository. */
  readonly file: string;
  /** Text of it, each found once, and what takes its place. */
  readonly changes: readonly (readonly [found: string, instead: string])[];
}

/** What a server must not do without. */
export const SABOTAGES: readonly Sabotage[] = [
  {
    name: 'a flush is answered, and nothing was flushed',
    kinds: COMMITS,
    file: 'packages/device/src/device.ts',
    changes: [
      [
        "await this.#run('none', start, options, () => this.#flushLayers(this.#chain.layers));",
        "await this.#run('none', start, options, async () => undefined);",
      ],
    ],
  },
  {
    name: 'FUA is not looked at',
    kinds: COMMITS,
    file: 'packages/device/src/device.ts',
    changes: [['if (options?.fua === true) await this.#flushImage(this.#chain.active);', '']],
  },
  {
    name: 'PIVOT is written after changes of the new disk are answered',
    kinds: ['active', 'active', 'active', 'active'],
    file: 'packages/commit/src/pivot.ts',
    changes: [
      ['    await journal.append(record);\n', ''],
      [
        '  });\n  return ending;',
        '  });\n  await new Promise((resolve) => setTimeout(resolve, 100));\n  if (ending === "complete") await parts.journal.append(parts.record);\n  return ending;',
      ],
    ],
  },
  {
    name: 'references are switched before what they lead to is flushed',
    kinds: COMMITS,
    file: 'packages/commit/src/step-runner.ts',
    changes: [
      [
        'for (const node of nodes) await this.#target(node).flush();',
        'setTimeout(() => nodes.forEach((node) => void this.#target(node).flush().catch(() => undefined)), 20);',
      ],
    ],
  },
  {
    name: '--resume does nothing',
    kinds: COMMITS,
    file: 'apps/server/src/jobs/recover.ts',
    changes: [['if (resume) {', 'if (resume) continue;\n    if (resume) {']],
  },
  {
    name: 'the disk forgets what a mirror did not copy yet',
    kinds: ['active'],
    file: 'packages/device/src/mirror.ts',
    changes: [['    this.#dirty.set(change);\n', '']],
  },
  {
    name: 'threads are not told what a change moves',
    kinds: COMMITS,
    file: 'packages/device/src/direct-map.ts',
    changes: [['    this.map.forget(span.start, span.end);\n', '']],
  },
];

const HOOK = new URL('./sabotage-hook.ts', import.meta.url).href;

/** Environment of a server that is so, from sources. */
export function sabotaged(name: string): NodeJS.ProcessEnv {
  return {
    NODE_OPTIONS: [...FROM_SOURCE, `--import=${HOOK}`].join(' '),
    DOWNFOLD_SABOTAGE: name,
  };
}
