import { run } from '../src/program.ts';

/**
 * Runs many command lines in one process, for tests that compare hundreds of them: `node run-many.ts`, a JSON array of argument lists on
 * stdin, a JSON array of `{code, stdout, stderr}` on stdout.
 */
let [stdout, stderr] = ['', ''];
const write = process.stdout.write.bind(process.stdout);
type Rest = readonly unknown[];
const written = (piece: unknown, rest: Rest): string => {
  for (const done of rest) if (typeof done === 'function') done();
  return piece instanceof Uint8Array ? Buffer.from(piece).toString() : String(piece);
};
process.stdout.write = (piece: unknown, ...rest: Rest) => {
  stdout += written(piece, rest);
  return true;
};
process.stderr.write = (piece: unknown, ...rest: Rest) => {
  stderr += written(piece, rest);
  return true;
};

let input = '';
for await (const part of process.stdin.setEncoding('utf8')) input += part;
const ended: unknown[] = [];
for (const args of JSON.parse(input) as readonly (readonly string[])[]) {
  [stdout, stderr] = ['', ''];
  const code = await run(args);
  ended.push({ code, stdout, stderr });
}
write(JSON.stringify(ended));
