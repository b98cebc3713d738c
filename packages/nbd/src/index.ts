export type { DirectReads } from '@downfold/units';
export type {
  ClientChangeOptions,
  ClientZeroOptions,
  NbdClient,
} from './client/client.ts';
export {
  type ConnectOptions,
  connectNbd,
  listExports,
  type ReachOptions,
  type ServerAddress,
} from './client/connect.ts';
export type { ExportInfo, ListedExport } from './client/haggle.ts';
export type { Statuses } from './client/replies.ts';
export type { ClientCertificates, ClientKey, ClientTls } from './client/tls.ts';
export { ByteQueue } from './codec/byte-queue.ts';
export {
  decodeGreeting,
  encodeClientFlags,
  encodeGreeting,
  encodeOption,
  encodeOptionReply,
  GREETING_BYTES,
  OptionDecoder,
  type OptionReply,
  OptionReplyDecoder,
  type OptionRequest,
} from './codec/handshake.ts';
export {
  type ContextQuery,
  decodeContextQuery,
  decodeExportFacts,
  decodeInfo,
  decodeInfoQuery,
  decodeMetaContext,
  decodeServerEntry,
  EXPORT_NAME_REPLY_BYTES,
  type ExportFacts,
  encodeContextQuery,
  encodeExportNameReply,
  encodeInfoBlockSize,
  encodeInfoExport,
  encodeInfoQuery,
  encodeInfoText,
  encodeMetaContext,
  encodeServerEntry,
  type Info,
  type InfoQuery,
} from './codec/option-data.ts';
export {
  CHUNK_BYTES,
  type ChunkOf,
  type ChunkStyle,
  encodeDataHeader,
  encodeError,
  encodeHole,
  encodeNone,
  encodeSimpleReply,
  encodeStatus,
} from './codec/reply.ts';
export { ReplyDecoder, type ReplySink } from './codec/reply-decoder.ts';
export {
  encodeRequestHeader,
  type Request,
  RequestDecoder,
  type RequestHeader,
} from './codec/request.ts';
export { errnoError, NbdError, type NbdErrorCode } from './errors.ts';
export {
  ALLOCATION_DEPTH,
  BASE_ALLOCATION,
  type BlockSize,
  CHUNK,
  COMMAND,
  COMMAND_FLAG,
  DEFAULT_BLOCK_SIZE,
  ERRNO,
  type Errno,
  EXPORT_FLAG,
  HANDSHAKE_FLAG,
  INFO,
  MAX_PAYLOAD,
  OPTION,
  OPTION_REPLY,
  STATE,
  type StatusExtent,
  type Style,
} from './protocol.ts';
export type {
  CallOptions,
  ChangeOptions,
  Export,
  ExportSupport,
  Hole,
  ZeroOptions,
} from './server/export.ts';
export { type Endpoint, isLoopback } from './server/listen.ts';
export {
  type CloseOptions,
  type NbdServer,
  type ServerLimits,
  type ServerOptions,
  serveNbd,
} from './server/server.ts';
export type { ServerCertificates, ServerKeys, ServerTls } from './server/tls.ts';
export type { Answered } from './server/transmission.ts';
