import { styleText } from 'node:util';
import { stderr, stdout } from './streams.ts';

type Style = Parameters<typeof styleText>[0];

/** Results, and nothing else. */
export function print(text: string): void {
  stdout().write(`${text}\n`);
}

/** As `print`, without a line end, and waits while the reader is slow. */
export async function printPart(text: string): Promise<void> {
  await new Promise<void>((resolve) => stdout().write(text, () => resolve()));
}

/** As `printPart`, of bytes, which may be used again when it resolves. */
export async function printBytes(bytes: Uint8Array): Promise<void> {
  await new Promise<void>((resolve) => stdout().write(bytes, () => resolve()));
}

/** Everything that is not a result. */
export function printError(text: string): void {
  stderr().write(`${text}\n`);
}

/** One JSON value on stdout, indented as qemu-img does. */
export function printJson(value: unknown): void {
  print(jsonText(value, 4));
}

/** One JSON value on a line of stdout. */
export function printJsonLine(value: unknown): void {
  print(jsonText(value));
}

/** JSON that commands no terminal, and keeps integers of 64 bits. */
function jsonText(value: unknown, indent?: number): string {
  const text = JSON.stringify(
    value,
    (_, member: unknown) => (typeof member === 'bigint' ? rawJson(String(member)) : member),
    indent,
  );
  // of the control characters JSON leaves these as they are
  return text.replaceAll(
    /[\u007f-\u009f]/g,
    (character) => `\\u00${character.charCodeAt(0).toString(16)}`,
  );
}

/** Of V8; TypeScript does not know it yet. */
const { rawJSON: rawJson } = JSON as unknown as { readonly rawJSON: (text: string) => unknown };

/** A result: as JSON with `--output json`, else for people unless `-q`. */
export function printResult(
  { output, quiet }: { readonly output: string; readonly quiet?: boolean },
  value: unknown,
  human: () => string,
): void {
  if (output === 'json') printJson(value);
  else if (quiet !== true) print(human());
}

/** Colours `text` when stdout is a terminal and neither NO_COLOR nor TERM=dumb forbids it. */
export function styled(style: Style, text: string): string {
  if (process.env['TERM'] === 'dumb') return text;
  return styleText(style, text, { stream: stdout() });
}
