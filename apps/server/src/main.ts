import { run } from './program.ts';

// a log without room, or without a reader, must not end what is served
process.stderr.on('error', () => undefined);
process.exitCode = await run(process.argv.slice(2));
