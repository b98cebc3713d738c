import type { Duplex } from 'node:stream';
import { DownfoldError } from '@downfold/units';
import { checked } from './check.ts';
import type { Command, Commands } from './command.ts';
import { QmpError, QmpProtocolError } from './errors.ts';
import { isObject, type Json, type JsonObject } from './json.ts';
import { JsonReader, type ReaderLimits, type Reading } from './reader.ts';
import type { QmpVersion } from './version.ts';
import { toJson } from './writer.ts';

/** What a session needs of its server. */
interface SessionParts {
  readonly version: QmpVersion;
  readonly commands: Commands;
  readonly limits: ReaderLimits;
  readonly unread: number;
  readonly onFault: (fault: unknown, command: string) => void;
  /** Runs a command when its turn comes. */
  readonly run: (command: Command, args: unknown) => Promise<unknown>;
}

const LINE_END = '\r\n';
const NEGOTIATION = 'qmp_capabilities';

/** One client. Reads no further while a command runs, so that nothing piles up here. */
export class Session {
  readonly #stream: Duplex;
  readonly #parts: SessionParts;
  readonly #over = Promise.withResolvers<void>();
  #negotiated = false;
  #closing = false;
  /** Whether a command runs, so that closing waits for its answer. */
  #busy: Promise<void> | null = null;

  constructor(stream: Duplex, parts: SessionParts) {
    this.#stream = stream;
    this.#parts = parts;
  }

  /** Tells a client that it cannot have a session. */
  static refuse(stream: Duplex, error: QmpProtocolError): void {
    // a client that is gone already needs no telling
    stream.on('error', () => undefined);
    stream.end(toJson({ error: { class: 'GenericError', desc: error.message } }) + LINE_END, () =>
      stream.destroy(),
    );
  }

  /** @returns what broke the connection, or `null` */
  async run(): Promise<Error | null> {
    let broken: Error | null = null;
    this.#stream.on('error', (error) => {
      broken ??= error;
    });
    this.#stream.once('close', () => this.#over.resolve());
    this.#write(toJson({ QMP: { version: this.#parts.version, capabilities: [] } }));
    try {
      await this.#answerAll();
      if (!this.#stream.destroyed) this.#stream.end();
      await this.#over.promise;
    } catch (error) {
      this.#stream.destroy();
      if (!isOfStream(error, this.#stream)) throw error;
      broken ??= this.#closing ? null : error;
    }
    return broken;
  }

  /** An event, for those who have negotiated. */
  tell(event: object): void {
    const { destroyed, writableEnded, writableLength } = this.#stream;
    if (!this.#negotiated || destroyed || writableEnded) return;
    if (writableLength > this.#parts.unread)
      this.#stream.destroy(
        new QmpProtocolError(
          'QMP_SLOW_READER',
          `a client has left ${writableLength} bytes unread, and loses its session`,
          { unread: writableLength },
        ),
      );
    else this.#write(toJson(event));
  }

  /** Ends the session once the command that runs is answered and the answer sent; after `grace` milliseconds, anyhow. */
  async close(grace: number): Promise<void> {
    this.#closing = true;
    const timer = setTimeout(() => this.#stream.destroy(), grace);
    const cut = this.#over.promise;
    await Promise.race([this.#busy, cut]);
    if (!this.#stream.destroyed) this.#stream.end(() => this.#stream.destroy());
    await cut;
    clearTimeout(timer);
  }

  async #answerAll(): Promise<void> {
    const reader = new JsonReader(this.#parts.limits);
    for await (const chunk of this.#stream) {
      for (const reading of reader.feed(chunk)) {
        // leaving the loop destroys the stream, and with it what was not sent yet
        if (this.#closing) await this.#over.promise;
        if (this.#stream.destroyed) return;
        this.#busy = this.#answer(reading);
        await this.#busy;
        this.#busy = null;
        await this.#drained();
      }
    }
  }

  async #answer(reading: Reading): Promise<void> {
    const request = reading.error === undefined ? reading.value : undefined;
    const id = isObject(request) ? request['id'] : undefined;
    try {
      if (request === undefined) throw new QmpError('GenericError', reading.error?.message ?? '');
      this.#write(await this.#execute(request, id));
    } catch (error) {
      if (!(error instanceof QmpError)) throw error;
      this.#write(toJson({ id, error: { class: error.code, desc: error.message } }));
    }
  }

  /** @returns the answer. @throws QmpError whatever goes wrong */
  async #execute(request: Json, id: Json | undefined): Promise<string> {
    const { name, args } = requestOf(request);
    const { commands } = this.#parts;
    const command = Object.hasOwn(commands, name) ? commands[name] : undefined;
    if (!this.#negotiated && name !== NEGOTIATION)
      throw new QmpError(
        'CommandNotFound',
        `Expecting capabilities negotiation with '${NEGOTIATION}'`,
      );
    if (command === undefined)
      throw new QmpError('CommandNotFound', `The command ${name} has not been found`);
    const taken = checked(command.arguments, args);
    if (!this.#negotiated) return this.#negotiate(args, id);
    try {
      return toJson({ return: (await this.#parts.run(command, taken)) ?? {}, id });
    } catch (error) {
      throw this.#asAnswer(error, name);
    }
  }

  #negotiate({ enable }: JsonObject, id: Json | undefined): string {
    if (Array.isArray(enable) && enable.length > 0)
      throw new QmpError('GenericError', `Capability ${enable.join(', ')} not available`);
    this.#negotiated = true;
    return toJson({ return: {}, id });
  }

  #asAnswer(error: unknown, command: string): QmpError {
    if (error instanceof QmpError) return error;
    if (error instanceof DownfoldError) return new QmpError('GenericError', error.message, error);
    this.#parts.onFault(error, command);
    const what = error instanceof Error ? error.message : String(error);
    return new QmpError('GenericError', `Internal error in ${command}: ${what}`, error);
  }

  #write(json: string): void {
    if (!this.#stream.destroyed && !this.#stream.writableEnded) this.#stream.write(json + LINE_END);
  }

  /** Waits until the client has read enough. */
  async #drained(): Promise<void> {
    if (this.#stream.destroyed || !this.#stream.writableNeedDrain) return;
    await new Promise<void>((resolve) => {
      const done = (): void => {
        this.#stream.off('drain', done).off('close', done);
        resolve();
      };
      this.#stream.on('drain', done).on('close', done);
    });
  }
}

/** Whether `error` is the stream's failure, and not one of this code. */
function isOfStream(error: unknown, stream: Duplex): error is Error {
  if (!(error instanceof Error)) return false;
  return (
    error === stream.errored || ('code' in error && error.code === 'ERR_STREAM_PREMATURE_CLOSE')
  );
}

/** What `request` asks for. @throws QmpError in QEMU's words */
function requestOf(request: Json): { readonly name: string; readonly args: JsonObject } {
  if (!isObject(request)) throw malformed('QMP input must be a JSON object');
  let name: string | null = null;
  let args: JsonObject = {};
  for (const [member, value] of Object.entries(request)) {
    if (member === 'execute') {
      if (typeof value !== 'string') throw malformed("QMP input member 'execute' must be a string");
      name = value;
    } else if (member === 'arguments') {
      if (!isObject(value)) throw malformed("QMP input member 'arguments' must be an object");
      args = value;
    } else if (member !== 'id') throw malformed(`QMP input member '${member}' is unexpected`);
  }
  if (name === null) throw malformed("QMP input lacks member 'execute'");
  return { name, args };
}

function malformed(desc: string): QmpError {
  return new QmpError('GenericError', desc);
}
