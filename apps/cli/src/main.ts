import { VERSION } from './version.ts';

// a reader that went away, such as `head`, has seen enough: not a failure worth a word
for (const stream of [process.stdout, process.stderr])
  stream.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit(0);
    throw error;
  });

const args = process.argv.slice(2);
if (args.length === 1 && (args[0] === '-V' || args[0] === '--version'))
  process.stdout.write(`downfold version ${VERSION}\n`);
else {
  const { run } = await import('./program.ts');
  process.exitCode = await run(args);
}
