import { writeSync } from 'node:fs';

let [out, err]: [NodeJS.WriteStream | null, NodeJS.WriteStream | null] = [null, null];
let lost: Error | null = null;
let readersEnd = false;

/** From here on whoever stops reading results ends the process: for commands that do nothing but tell. */
export function endWithReader(): void {
  readersEnd = true;
}

/** Where results go. Taken first when there is one to print: a pipe brings Node's sockets, a terminal even more. */
export function stdout(): NodeJS.WriteStream {
  out ??= whole(process.stdout).on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE' && error.code !== 'ERR_STREAM_DESTROYED') lost ??= error;
    // a reader of results that went away, such as `head`, has seen enough: not a failure worth a word. Work goes on to its end
    else if (readersEnd) process.exit(process.exitCode ?? 0);
  });
  return out;
}

/** Why what was to be printed is not all there: a full disk, most of the time. Work goes on then, as in qemu-img; null: it is. */
export function lostResult(): Error | null {
  return lost;
}

/** Where all that is not a result goes; as `stdout`. */
export function stderr(): NodeJS.WriteStream {
  // nobody looks at the progress any more, or there is no room for it: that must not end a job
  err ??= process.stderr.on('error', () => {});
  return err;
}

/** How Node marks streams of files and devices. */
type Marked = NodeJS.WriteStream & { readonly _type?: string; readonly fd: number };

/** To a file Node writes once, however little of it there was room for, and takes that for all. */
function whole(stream: NodeJS.WriteStream): NodeJS.WriteStream {
  const { _type, fd } = stream as Marked;
  if (_type !== 'fs') return stream;
  stream._write = (bytes: Uint8Array, _encoding, done) => {
    try {
      for (let at = 0; at < bytes.length && lost === null; )
        at += writeSync(fd, bytes, at, bytes.length - at);
      done();
    } catch (error) {
      lost = error as Error;
      done(lost);
    }
  };
  return stream;
}
