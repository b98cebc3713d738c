import {
  type PoolGraph,
  renderDot,
  renderMermaid,
  renderSvg,
  renderTree,
  scanPool,
} from '@downfold/chain';
import { type Access, backend, formats, policyFor } from '../environment.ts';
import { printJson, printPart } from '../output/print.ts';
import { absolute, directoryOf } from '../paths.ts';

/** Options of `graph`. */
export interface GraphOptions extends Access {
  readonly output: string;
}

const RENDERERS: Readonly<Record<string, (graph: PoolGraph) => string>> = {
  human: renderTree,
  dot: renderDot,
  mermaid: renderMermaid,
  svg: renderSvg,
};

/** `downfold graph`: every image under the paths (a file stands for its directory), and who depends on whom. */
export async function graph(paths: readonly string[], options: GraphOptions): Promise<number> {
  const directories: string[] = [];
  for (const path of paths) {
    const { kind } = await backend.facts(absolute(path));
    directories.push(kind === 'directory' ? absolute(path) : directoryOf(path));
  }
  const policy = policyFor(paths, options);
  const found = await scanPool(directories, { backend, formats, policy });
  if (options.output === 'json') printJson(found);
  else await printPart(RENDERERS[options.output]?.(found) ?? '');
  return 0;
}
