import { posix } from 'node:path';
import { overlaysOf } from './dependents.ts';
import type { PoolGraph, PoolImage } from './pool.ts';

/** Bytes for people: `1.5 GiB`. */
export function formatBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let [value, unit] = [bytes, 0];
  for (; value >= 1024 && unit < units.length - 1; unit++) value /= 1024;
  return `${unit === 0 ? value : value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0)} ${units[unit]}`;
}

/** What a tree is drawn of. */
export interface TreeOf<T> {
  /** In their order; those without a `below` come first. */
  readonly nodes: readonly T[];
  readonly below: (node: T) => unknown;
  /** What stands on it. */
  readonly above: (node: T) => readonly T[];
  readonly label: (node: T) => string;
}

/** Lines of an indented tree; a node is followed by what stands on it. What is in a loop is shown once. */
export function treeLines<T>({ nodes, below, above, label }: TreeOf<T>): string[] {
  const lines: string[] = [];
  const shown = new Set<T>();
  const show = (node: T, indent: string, last: boolean, depth: number): void => {
    const branch = depth === 0 ? '' : `${indent}${last ? '└── ' : '├── '}`;
    lines.push(`${branch}${label(node)}`);
    if (shown.has(node)) return;
    shown.add(node);
    const overlays = above(node);
    const next = depth === 0 ? '' : `${indent}${last ? '    ' : '│   '}`;
    for (const [index, overlay] of overlays.entries())
      show(overlay, next, index === overlays.length - 1, depth + 1);
  };
  for (const node of nodes) if (below(node) === null) show(node, '', true, 0);
  // what is left has no bottom: loops
  for (const node of nodes) if (!shown.has(node)) show(node, '', true, 0);
  return lines;
}

/** The graph as an indented tree, bases first; an image is followed by its overlays. */
export function renderTree(graph: PoolGraph): string {
  const lines = treeLines({
    nodes: graph.images,
    below: ({ backingNode }) => backingNode,
    above: (image) => overlaysOf(graph, image),
    label: (image) => labelOf(graph, image),
  });
  if (lines.length === 0) lines.push(`No images in ${graph.directories.join(', ')}`);
  for (const { path, message } of graph.problems)
    lines.push(`! ${message.startsWith(path) ? '' : `${path}: `}${message}`);
  return `${lines.map(printable).join('\n')}\n`;
}

function labelOf(graph: PoolGraph, image: PoolImage): string {
  const parts = [
    image.format,
    formatBytes(image.geometry.virtualSize),
    `${formatBytes(image.allocated)} on disk`,
  ];
  if (image.mark !== null) parts.push(`${image.mark.state.toUpperCase()} since ${image.mark.date}`);
  if (image.problem !== null) parts.push(`backing file: ${image.problem.code}`);
  return `${nameOf(graph, image)}  (${parts.join(', ')})`;
}

/** File names may hold anything: what could command a terminal, break a line or turn the text around becomes `\xHH` or `\uHHHH`. */
export function printable(text: string): string {
  return text.replaceAll(/[\p{Cc}\u2028\u2029\u202a-\u202e\u2066-\u2069]/gu, (character) => {
    const code = character.charCodeAt(0).toString(16);
    return code.length > 2 ? `\\u${code}` : `\\x${code.padStart(2, '0')}`;
  });
}

/** The path, relative to the pool's directory when there is only one. */
function nameOf(graph: PoolGraph, image: PoolImage): string {
  const [directory, ...more] = graph.directories;
  if (directory === undefined || more.length > 0) return image.path;
  const name = posix.relative(directory, image.path);
  return name.startsWith('..') ? image.path : name;
}

/** Graphviz: an arrow from each overlay to its backing file; images that are no longer valid in red. */
export function renderDot(graph: PoolGraph): string {
  const lines = ['digraph pool {', '  rankdir=BT;', '  node [shape=box, fontname="sans-serif"];'];
  for (const image of graph.images) {
    const colour =
      image.mark === null && image.problem === null ? '' : ', color=red, fontcolor=red';
    lines.push(
      `  ${image.node} [label=${JSON.stringify(`${printable(nameOf(graph, image))}\n${detailOf(image)}`)}${colour}];`,
    );
    if (image.backingNode !== null) lines.push(`  ${image.node} -> ${image.backingNode};`);
  }
  return `${[...lines, '}'].join('\n')}\n`;
}

/** Mermaid flow chart, for Markdown. */
export function renderMermaid(graph: PoolGraph): string {
  const lines = ['flowchart BT'];
  const quote = (text: string): string =>
    printable(text).replaceAll('&', '#amp;').replaceAll('<', '#lt;').replaceAll('"', '#quot;');
  for (const image of graph.images) {
    lines.push(`  ${image.node}["${quote(nameOf(graph, image))}<br/>${quote(detailOf(image))}"]`);
    if (image.backingNode !== null) lines.push(`  ${image.node} --> ${image.backingNode}`);
    if (image.mark !== null || image.problem !== null)
      lines.push(`  style ${image.node} stroke:#c00,color:#c00`);
  }
  return `${lines.join('\n')}\n`;
}

function detailOf(image: PoolImage): string {
  const state = image.mark?.state ?? image.problem?.code ?? '';
  return [image.format, formatBytes(image.geometry.virtualSize), state]
    .filter((part) => part !== '')
    .join(', ');
}

const BOX = { width: 220, height: 46, gapX: 40, gapY: 16 } as const;
/** Characters of a name that fit into a box. */
const NAME_CHARACTERS = 28;

/** A self-contained SVG: bases to the left, overlays to the right of what backs them. */
export function renderSvg(graph: PoolGraph): string {
  const places = place(graph);
  const width = Math.max(0, ...[...places.values()].map(({ x }) => x)) + BOX.width + BOX.gapX;
  const height = Math.max(0, ...[...places.values()].map(({ y }) => y)) + BOX.height + BOX.gapX;
  const parts: string[] = [];
  for (const [image, { x, y }] of places) {
    const backing = graph.images.find((one) => one.node === image.backingNode);
    const from = backing === undefined ? undefined : places.get(backing);
    if (from !== undefined)
      parts.push(
        `<line x1="${x}" y1="${y + BOX.height / 2}" x2="${from.x + BOX.width + 6}" y2="${from.y + BOX.height / 2}" stroke="#555" marker-end="url(#arrow)"/>`,
      );
    const colour = image.mark === null && image.problem === null ? '#333' : '#c00';
    parts.push(
      `<rect x="${x}" y="${y}" width="${BOX.width}" height="${BOX.height}" rx="4" fill="#fff" stroke="${colour}"/>`,
      `<text x="${x + 10}" y="${y + 19}" font-weight="bold" fill="${colour}">${escapeXml(shortened(posix.basename(image.path)))}<title>${escapeXml(image.path)}</title></text>`,
      `<text x="${x + 10}" y="${y + 36}" fill="${colour}">${escapeXml(detailOf(image))}</text>`,
    );
  }
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" font-family="sans-serif" font-size="12"><defs><marker id="arrow" markerWidth="8" markerHeight="8" refX="6" refY="4" orient="auto"><path d="M0,0 L8,4 L0,8 z" fill="#555"/></marker></defs>${parts.join('')}</svg>\n`;
}

function place(graph: PoolGraph): Map<PoolImage, { x: number; y: number }> {
  const places = new Map<PoolImage, { x: number; y: number }>();
  let row = 0;
  const put = (image: PoolImage, depth: number): void => {
    if (places.has(image)) return;
    places.set(image, {
      x: 20 + depth * (BOX.width + BOX.gapX),
      y: 20 + row * (BOX.height + BOX.gapY),
    });
    const overlays = overlaysOf(graph, image);
    for (const [index, overlay] of overlays.entries()) {
      if (index > 0) row++;
      put(overlay, depth + 1);
    }
  };
  const bottoms = graph.images.filter((image) => image.backingNode === null);
  for (const image of [...bottoms, ...graph.images]) {
    if (places.has(image)) continue;
    put(image, 0);
    row++;
  }
  return places;
}

/** The name, its middle left out when it is too long for a box. */
function shortened(name: string): string {
  if (name.length <= NAME_CHARACTERS) return name;
  const half = Math.floor((NAME_CHARACTERS - 1) / 2);
  return `${name.slice(0, half)}…${name.slice(-half)}`;
}

function escapeXml(text: string): string {
  return printable(text)
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;');
}
