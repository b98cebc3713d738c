import { VERSION } from './version.ts';

const unlessGone = (gone: () => void) => (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
  gone();
};
// a reader of results that went away, such as `head`, has seen enough: not a failure worth a word
process.stdout.on(
  'error',
  unlessGone(() => process.exit(process.exitCode ?? 0)),
);
// nobody looks at the progress any more: that must not end a job
process.stderr.on(
  'error',
  unlessGone(() => {}),
);

const args = process.argv.slice(2);
if (args.length === 1 && (args[0] === '-V' || args[0] === '--version'))
  process.stdout.write(`downfold version ${VERSION}\n`);
else {
  const { run } = await import('./program.ts');
  process.exitCode = await run(args);
}
