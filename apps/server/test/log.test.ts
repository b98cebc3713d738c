import { renameSync } from 'node:fs';
import { connectNbd } from '@downfold/nbd';
import { describe, expect, it } from 'vitest';
import { LEVELS, type Level, type LogFormat, logTo } from '../src/log.ts';
import { Bench, MIB, makeChain } from './support.ts';

/** What a terminal, or who reads a log by lines, would follow. */
const NASTY = 'a\nb\r\u001b[31mc\u0007\u009bd\u2028e\u202ef\0g"h\\i\ud800j';
const HARMLESS = 'a\\x0ab\\x0d\\x1b[31mc\\x07\\x9bd\\u2028e\\u202ef\\x00g"h\\i';

function linesOf(format: LogFormat, level: Level): readonly string[] {
  const lines: string[] = [];
  const log = logTo({
    format,
    level,
    write: (line) => void lines.push(line),
    now: () => new Date(0),
  });
  for (const own of LEVELS) log[own](`${own}: ${NASTY}`, { image: NASTY, bytes: 7 });
  return lines;
}

describe('a log', () => {
  it('of text has a line for each message, and says what is no matter of course', () => {
    const lines = linesOf('text', 'debug');
    expect(lines).toHaveLength(4);
    for (const line of lines) expect(line).toMatch(/^downfoldd: [^\p{Cc}\u2028\u202e]*\n$/u);
    expect(lines[1]).toContain(`downfoldd: info: ${HARMLESS}`);
    expect(lines[2]).toMatch(/^downfoldd: warning: warn: /);
    expect(lines[3]).toMatch(/^downfoldd: error: error: /);
  });

  it('of JSON has an object a line, with the fields as they are, but for what is dangerous', () => {
    const lines = linesOf('json', 'debug');
    expect(lines.map((line) => JSON.parse(line))).toMatchObject(
      LEVELS.map((level) => ({
        time: '1970-01-01T00:00:00.000Z',
        level,
        message: expect.stringContaining(`${level}: ${HARMLESS}`),
        image: expect.stringContaining(HARMLESS),
        bytes: 7,
      })),
    );
    for (const line of lines) expect(line).toMatch(/^[^\p{Cc}\u2028\u202e]*\n$/u);
  });

  it('leaves out what matters less than its level', () => {
    for (const [index, level] of LEVELS.entries())
      expect(linesOf('text', level)).toHaveLength(LEVELS.length - index);
  });

  it('does not take a name for more than 4096 characters', () => {
    const lines: string[] = [];
    const log = logTo({ format: 'json', level: 'info', write: (line) => void lines.push(line) });
    log.info('x'.repeat(100_000), { name: 'y'.repeat(100_000) });
    expect(lines[0]?.length).toBeLessThan(9000);
  });
});

describe('what the server logs', () => {
  it('is JSON when told so, without names that break lines, and without what guests write', async () => {
    await using bench = new Bench();
    await makeChain(bench);
    const name = 'top\n{"level":"error"}\u001b[2J.qcow2';
    renameSync(bench.file('top.qcow2'), bench.file(name));
    const served = await bench.disk(name, '--log-format', 'json', '--log-level', 'debug');
    const secret = 'correct horse battery staple';
    {
      await using client = await connectNbd({ server: { path: bench.file('run/nbd.sock') } });
      await client.write(0, Buffer.alloc(MIB, secret));
      await client.flush();
      await client.read(0, Buffer.alloc(MIB));
    }
    await expect(
      connectNbd({ server: { path: bench.file('run/nbd.sock') }, name: secret }),
    ).rejects.toThrow();
    await served.execute('block-commit', {
      'job-id': 'j',
      device: 'disk',
      'top-node': '#mid.qcow2',
      'base-node': '#base.qcow2',
    });
    await served.until('null');
    const { stderr, code } = await served.stop();
    expect(code).toBe(0);
    const lines = stderr
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line));
    for (const line of lines)
      expect(line).toMatchObject({
        time: expect.stringMatching(/^\d{4}-.*Z$/),
        level: expect.stringMatching(/^(debug|info|warn)$/),
        message: expect.any(String),
      });
    const states = lines.filter(({ level, job }) => level === 'debug' && job === 'j');
    expect(states.length).toBeGreaterThan(4);
    expect(stderr).not.toContain(secret);
  });
});
