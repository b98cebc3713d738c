import { resolve } from 'node:path';
import { ServerError } from '../errors.ts';
import type { NbdOptions, ProtocolOptions } from '../qmp/schema/nodes.ts';

/** The file that a node is, or its URL. @throws ServerError `SERVER_USAGE` */
export function filenameOf(options: ProtocolOptions): string {
  switch (options.driver) {
    case 'file':
      return options.filename;
    case 'nbd':
      return nbdUri(options);
    case 'http':
    case 'https':
      if (options.url.startsWith(`${options.driver}://`)) return options.url;
      throw new ServerError('SERVER_USAGE', `'${options.url}' is no ${options.driver} URL`);
  }
}

function nbdUri({ server, export: name = '' }: NbdOptions): string {
  const exported = name.split('/').map(encodeURIComponent).join('/');
  if (server.type === 'fd')
    throw new ServerError('SERVER_UNSUPPORTED', 'an NBD server is reached by a path, or a host');
  if (server.type === 'unix')
    return `nbd+unix:///${exported}?socket=${resolve(server.path).split('/').map(encodeURIComponent).join('/')}`;
  const host = server.host.includes(':') ? `[${server.host}]` : server.host;
  return `nbd://${host}:${server.port}/${exported}`;
}
