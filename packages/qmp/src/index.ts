export { checked } from './check.ts';
export { type ClientOptions, connectQmp, QmpClient, type QmpGreeting } from './client.ts';
export {
  type Command,
  type CommandContext,
  type Commands,
  command,
  type Event,
  type Events,
  event,
  type Interface,
} from './command.ts';
export { document } from './document.ts';
export {
  QmpError,
  type QmpErrorClass,
  QmpProtocolError,
  type QmpProtocolErrorCode,
} from './errors.ts';
export type { QmpEvent } from './event-queue.ts';
export { introspect } from './introspect.ts';
export type { Json } from './json.ts';
export { type ListenOptions, listenQmp, type QmpListener } from './listen.ts';
export type { ReaderLimits } from './reader.ts';
export { QmpServer, type ServerLimits, type ServerOptions } from './server.ts';
export * from './types.ts';
export type { QmpVersion } from './version.ts';
