import { createServer, type Server, type Socket } from 'node:net';
import {
  ByteQueue,
  EXPORT_FLAG,
  encodeGreeting,
  encodeInfoExport,
  encodeMetaContext,
  encodeOptionReply,
  NbdError,
  OPTION,
  OPTION_REPLY,
  OptionDecoder,
  type Request,
  RequestDecoder,
  type Style,
} from '../src/index.ts';

/** What a scripted server does in place of what a good one would. `null` leaves it to the good one. */
export interface Script {
  readonly style: Style;
  /** Bytes in place of the greeting. */
  readonly greeting?: Buffer;
  readonly option?: (option: number, socket: Socket) => readonly Buffer[] | null;
  /** Bytes in answer to a request. */
  readonly request?: (request: Request, socket: Socket) => readonly Buffer[];
}

const ALL =
  EXPORT_FLAG.hasFlags |
  EXPORT_FLAG.flush |
  EXPORT_FLAG.fua |
  EXPORT_FLAG.trim |
  EXPORT_FLAG.writeZeroes |
  EXPORT_FLAG.fastZero |
  EXPORT_FLAG.cache;

/** Size of what a scripted server says it serves. */
const SCRIPTED_SIZE = 65_536;

/** A server that negotiates as it should and then says what the script says, right or wrong. */
export async function scriptedServer(path: string, script: Script): Promise<AsyncDisposable> {
  const sockets = new Set<Socket>();
  const server: Server = createServer((socket) => {
    sockets.add(socket);
    // a client that has seen enough hangs up
    socket.on('error', () => {});
    serve(socket, script);
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  return {
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

function serve(socket: Socket, script: Script): void {
  const queue = new ByteQueue();
  const options = new OptionDecoder();
  let requests: RequestDecoder | null = null;
  let flags = false;
  socket.write(script.greeting ?? encodeGreeting(3));
  const ack = encodeOptionReply(OPTION.go, OPTION_REPLY.ack);
  const take = (chunk: Buffer) => {
    queue.push(chunk);
    flags ||= queue.take(4) !== null;
    while (flags && requests === null) {
      const request = options.next(queue);
      if (request === null) return;
      const replies =
        script.option?.(request.option, socket) ?? goodAnswer(request.option, script.style);
      for (const reply of replies) socket.write(reply);
      if (request.option === OPTION.go && Buffer.concat(replies).includes(ack))
        requests = new RequestDecoder(script.style === 'extended');
    }
    for (let request = requests?.next(queue); request; request = requests?.next(queue))
      for (const piece of script.request?.(request, socket) ?? []) socket.write(piece);
  };
  socket.on('data', (chunk: Buffer) => {
    try {
      take(chunk);
    } catch (error) {
      // a client that was lied to may have understood something else
      if (!(error instanceof NbdError)) throw error;
      socket.destroy();
    }
  });
}

/** What a good server answers to an option. */
export function goodAnswer(option: number, style: Style): Buffer[] {
  const ack = encodeOptionReply(option, OPTION_REPLY.ack);
  const no = encodeOptionReply(option, OPTION_REPLY.unsupported);
  if (option === OPTION.extendedHeaders) return [style === 'extended' ? ack : no];
  if (option === OPTION.structuredReply) return [style === 'structured' ? ack : no];
  if (option === OPTION.setMetaContext)
    return [
      encodeOptionReply(option, OPTION_REPLY.metaContext, encodeMetaContext(7, 'base:allocation')),
      encodeOptionReply(option, OPTION_REPLY.metaContext, encodeMetaContext(8, 'qemu:x')),
      ack,
    ];
  if (option !== OPTION.go) return [no];
  const facts = encodeInfoExport({ size: SCRIPTED_SIZE, flags: ALL });
  return [encodeOptionReply(option, OPTION_REPLY.info, facts), ack];
}
