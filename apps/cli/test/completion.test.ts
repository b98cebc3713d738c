import { readdirSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { type Bench, bench } from './support.ts';

/** Asks a shell which words could stand at the end of a command line. */
type Ask = (work: Bench, line: string) => readonly string[];

const words = (text: string): readonly string[] =>
  text
    .split('\n')
    .map((line) => line.split('\t')[0]?.trim() ?? '')
    .filter((word) => word !== '');

/** As readline would: words are cut at blanks and at `=`. */
const bash: Ask = (work, line) => {
  const cut = line
    .replaceAll('=', ' = ')
    .split(' ')
    .filter((word, index, all) => word !== '' || index === all.length - 1);
  const script = `source ./bash; COMP_WORDS=(${cut.map((word) => `'${word}'`).join(' ')}); COMP_CWORD=${cut.length - 1}; _downfold 2>/dev/null; printf '%s\\n' "\${COMPREPLY[@]}"`;
  return words(work.must('bash', '-c', script));
};

const fish: Ask = (work, line) =>
  words(work.must('fish', '--no-config', '-c', `source ./fish; complete -C '${line}'`));

/** A terminal is needed to see what zsh completes; what it would be told of is enough. */
const zsh: Ask = (work, line) => {
  const stubs = `compdef() { :; }; _describe() { print -l "\${(@)\${(P)4}%%:*}"; }; _arguments() { print -l -- "$@"; }`;
  const cut = line.split(' ');
  const script = `${stubs}; source ./zsh; words=(${cut.map((word) => `'${word}'`).join(' ')}); CURRENT=${cut.length}; _downfold`;
  return words(work.must('zsh', '-f', '-c', script));
};

const has = (work: Bench, shell: string): boolean =>
  work.run('sh', '-c', `command -v ${shell}`).code === 0;

describe('completion', () => {
  it.each([
    ['bash', bash],
    ['fish', fish],
  ] as const)('of %s: commands, options, values', (shell, ask) => {
    using work = bench();
    writeFileSync(work.file(shell), work.downfold('completion', shell).stdout);
    if (!has(work, shell)) return;
    expect(ask(work, 'downfold co')).toEqual(
      expect.arrayContaining(['commit', 'compare', 'completion', 'convert']),
    );
    expect(ask(work, 'downfold commit --keep-')).toEqual(
      expect.arrayContaining(['--keep-siblings', '--keep-undo']),
    );
    expect(ask(work, 'downfold check --output ')).toEqual(
      expect.arrayContaining(['human', 'json']),
    );
    expect(ask(work, 'downfold commit --strategy st')).toEqual(['staged']);
    expect(ask(work, 'downfold convert -O q')).toEqual(['qcow2']);
    expect(ask(work, 'downfold completion z')).toEqual(['zsh']);
    const equals = ask(work, 'downfold check --output=j').map((word) => word.replace(/.*=/, ''));
    expect(equals).toEqual(['json']);
  });

  it('of zsh: commands, options, values', () => {
    using work = bench();
    writeFileSync(work.file('zsh'), work.downfold('completion', 'zsh').stdout);
    if (!has(work, 'zsh')) return;
    expect(zsh(work, 'downfold co')).toEqual(expect.arrayContaining(['commit', 'compare']));
    const told = zsh(work, 'downfold check -');
    expect(told).toContain(
      '(--output)--output=[form of the result]:value:(human json)'.replace('(--output)', ''),
    );
    expect(told).toContain(':file:_files');
    expect(told.some((one) => one.startsWith('(-f --format)-f+['))).toBe(true);
  });

  it('of another shell is refused', () => {
    using work = bench();
    const { code, stderr } = work.downfold('completion', 'tcsh');
    expect([code, stderr]).toEqual([
      1,
      expect.stringContaining('Allowed choices are bash, zsh, fish'),
    ]);
  });
});

/** What mandoc finds; that a page has no date is meant: the same sources make the same page. */
function lint(work: Bench, page: string): readonly string[] {
  const { stdout } = work.run('mandoc', '-T', 'lint', '-W', 'warning', page);
  return stdout.split('\n').filter((line) => line !== '' && !line.includes('missing date'));
}

describe('manual pages', () => {
  const directory = fileURLToPath(new URL('../dist/man/', import.meta.url));

  it('are there for every command, and without a complaint of mandoc or man', () => {
    using work = bench();
    const help = work.downfold('--help').stdout;
    const commands = [...help.matchAll(/^ {2}([a-z]+) .*$/gm)].map(([, name]) => name);
    const pages = readdirSync(directory).sort();
    for (const name of commands.filter((one) => one !== 'help' && one !== 'downfold'))
      expect(pages).toContain(`downfold-${name}.1`);
    for (const page of pages) {
      if (has(work, 'mandoc')) expect(lint(work, `${directory}${page}`)).toEqual([]);
      if (has(work, 'man'))
        expect(
          work.run('man', '--warnings', '-E', 'UTF-8', '-l', '-Tutf8', `${directory}${page}`)
            .stderr,
        ).toBe('');
    }
  });
});
