import { withoutMaglev } from '@downfold/host';
import { isUtf8 } from '@downfold/storage';
import { Command, CommanderError, Option } from 'commander';
import { startDaemon } from './daemon.ts';
import { isBackground, releaseStarter, startInBackground } from './daemonize.ts';
import { ServerError } from './errors.ts';
import { LEVELS, LOG_FORMATS, type Log, type LogOptions, lineOf, logTo } from './log.ts';
import { type RawOptions, type Settings, settingsOf } from './options/settings.ts';
import { inheritedSockets, notify } from './systemd.ts';
import { VERSION } from './version.ts';

const EXAMPLES = `Examples:
  downfoldd disk.qcow2 --nbd unix:run/nbd.sock --qmp unix:run/qmp.sock
                                      a disk, and all below it as the images say
  downfoldd disk.qcow2 --resume ...   and goes on with a job that was interrupted
  downfoldd --blockdev file,node-name=f0,filename=disk.qcow2 \\
            --blockdev qcow2,node-name=disk,file=f0 \\
            --nbd-server addr.type=unix,addr.path=run/nbd.sock \\
            --export nbd,id=e0,node-name=disk,writable=on \\
            --chardev socket,id=c0,path=run/qmp.sock,server=on,wait=off --monitor c0
                                      the same, as for qemu-storage-daemon

`;

const collect = (value: string, before: readonly string[] = []): readonly string[] => [
  ...before,
  value,
];

const several = (flags: string, about: string): Option =>
  new Option(flags, about).argParser(collect);

/** Runs the command line; resolves with the exit code when the server has ended. */
export async function run(args: readonly string[]): Promise<number> {
  withoutMaglev();
  let exitCode = 0;
  let log: Log = logTo({ format: 'text', level: 'info' });
  const program = programOf(async (file, options) => {
    log = logTo({ format: options.logFormat, level: options.logLevel });
    exitCode = await serve(file, options, args, log);
  });
  try {
    const wrong = args.find((word) => !isUtf8(word));
    if (wrong !== undefined)
      throw new ServerError('SERVER_USAGE', `'${wrong}': names must be UTF-8`);
    await program.parseAsync(args, { from: 'user' });
  } catch (cause) {
    if (cause instanceof CommanderError && cause.exitCode === 0) return 0;
    const usage = cause instanceof CommanderError || cause instanceof ServerError;
    log.error(usage ? lineOf(cause).replace(/^error: /, '') : `cannot serve: ${lineOf(cause)}`);
    exitCode = 1;
  }
  return exitCode;
}

async function serve(
  file: string | undefined,
  options: RawOptions,
  args: readonly string[],
  log: Log,
): Promise<number> {
  const settings = settingsOf(file, options);
  const sockets = inheritedSockets();
  if (settings.daemonize && !isBackground()) {
    if (sockets.size > 0)
      throw new ServerError('SERVER_USAGE', '--daemonize does not go with sockets of systemd');
    return await startInBackground(args);
  }
  const stopped = Promise.withResolvers<string>();
  const signals = ['SIGTERM', 'SIGINT', 'SIGHUP'] as const;
  for (const signal of signals) process.on(signal, () => stopped.resolve(signal));
  // also while it starts
  void stopped.promise.then(() => breakOffLater(settings, log));
  const daemon = await startDaemon(settings, sockets, log);
  await notify('READY=1').catch((cause) => log.warn(`systemd was not told: ${lineOf(cause)}`));
  await releaseStarter();
  const why = await Promise.race([stopped.promise, daemon.quit.then(() => 'quit')]);
  log.info(`${why}: stopping`);
  if (why === 'quit') breakOffLater(settings, log);
  await notify('STOPPING=1').catch(() => undefined);
  await daemon.stop();
  return 0;
}

/** Ends the process when stopping takes too long: who holds an image may never answer. What is left is as after a crash. */
function breakOffLater({ stopTimeout }: Settings, log: Log): void {
  if (stopTimeout === 0) return;
  const breakOff = (): void => {
    log.error(
      `stopping took more than ${stopTimeout} s, and was broken off: what clients flushed is durable, what they did not flush may be lost; jobs keep their journals: --resume goes on with them`,
    );
    process.exit(1);
  };
  setTimeout(breakOff, stopTimeout * 1000).unref();
}

type AllOptions = RawOptions & {
  readonly logFormat: LogOptions['format'];
  readonly logLevel: LogOptions['level'];
};

function programOf(act: (file: string | undefined, options: AllOptions) => Promise<void>): Command {
  return new Command('downfoldd')
    .description('serves a disk over NBD while jobs fold the layers beneath it, driven over QMP')
    .version(`downfoldd version ${VERSION}`, '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print help')
    .addHelpText('before', EXAMPLES)
    .argument('[file]', 'the active layer of a disk; without it, see --blockdev')
    .option('-f, --format <name>', 'format of FILE; never guessed (default: qcow2)')
    .option('--read-only', 'serve FILE for reading only')
    .option('--nbd <address>', 'serve it at unix:PATH or HOST:PORT')
    .option('--qmp <address>', 'take commands at unix:PATH')
    .option('--resume', 'go on with jobs that were interrupted')
    .addOption(
      several('--pool <dir>', 'look here too for images that depend on a disk (repeatable)'),
    )
    .addOption(
      several('--allow <dir>', 'backing files may also lie in this directory (repeatable)'),
    )
    .option(
      '--allow-data-file',
      'open the external data files that images name, where backing files may lie',
    )
    .addOption(
      new Option(
        '--lock <how>',
        "QEMU's locks on every image: auto refuses on network file systems; ofd takes them there too; none",
      )
        .choices(['auto', 'ofd', 'none'])
        .default('auto'),
    )
    .addOption(several('--blockdev <node>', 'make a node: keyval or JSON, as for blockdev-add'))
    .addOption(several('--export <export>', 'export a node, as for block-export-add'))
    .option('--nbd-server <address>', 'addr.type=unix,addr.path=...,tls-creds=...')
    .addOption(several('--chardev <chardev>', 'socket,id=ID,path=PATH,server=on'))
    .addOption(several('--monitor <chardev>', 'take commands at a chardev'))
    .addOption(several('--object <object>', 'secret, tls-creds-x509 or tls-creds-psk'))
    .addOption(
      several(
        '--secret <[image=]file>',
        'the file that holds the passphrase of encrypted images, or of this one (repeatable)',
      ),
    )
    .option(
      '--stop-timeout <seconds>',
      'end with exit code 1 when stopping takes longer, as when a server that holds an image is silent; 0: wait (default: 240)',
    )
    .option('--daemonize', 'go into the background once it serves')
    .option('--pidfile <path>', 'write the process id there')
    .option('--metrics <address>', 'serve /metrics and /healthz at unix:PATH or 127.0.0.1:PORT')
    .addOption(
      new Option('--log-format <how>', 'what is written to stderr: lines of text, or of JSON')
        .choices(LOG_FORMATS)
        .default('text'),
    )
    .addOption(
      new Option('--log-level <level>', 'what matters less is not written')
        .choices(LEVELS)
        .default('info'),
    )
    .configureOutput({ outputError: () => {} })
    .exitOverride()
    .action(act);
}
