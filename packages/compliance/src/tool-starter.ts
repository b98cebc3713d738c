// Started by `tool.ts`: runs what the first named pipe asks for, one program after the other, and answers through the second.
import { spawnSync } from 'node:child_process';
import { openSync } from 'node:fs';
import { readJsonLine, writeJsonLine } from './json-line.ts';
import type { ToolEnd, ToolRequest } from './tool.ts';

const [requests = '', answers = ''] = process.argv.slice(2);
const [from, to] = [openSync(requests, 'r'), openSync(answers, 'w')];

for (
  let request = readJsonLine<ToolRequest>(from);
  request !== null;
  request = readJsonLine<ToolRequest>(from)
)
  writeJsonLine(to, run(request));

function run({ program, args, ...options }: ToolRequest): ToolEnd {
  const { status, signal, stdout, stderr, error } = spawnSync(program, args, {
    ...options,
    encoding: 'utf8',
    maxBuffer: Number.POSITIVE_INFINITY,
  });
  const code = (error as NodeJS.ErrnoException | undefined)?.code ?? null;
  // there is no output of what could not be started
  return { status, signal, stdout: stdout ?? '', stderr: stderr ?? '', error: code };
}
