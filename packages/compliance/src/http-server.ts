import { createReadStream, statSync } from 'node:fs';
import { createServer } from 'node:http';

/** One file over HTTP, with ranges; it goes when the block ends. */
export async function httpServer(
  file: string,
): Promise<AsyncDisposable & { readonly url: string }> {
  const { size, mtimeMs } = statSync(file);
  const server = createServer(({ headers, url }, response) => {
    const [start = 0, end = 0] = (headers.range ?? '').match(/\d+/g)?.map(Number) ?? [];
    if (url !== '/disk') return void response.writeHead(404).end();
    const last = Math.min(end, size - 1);
    const range = `bytes ${start}-${last}/${size}`;
    response.writeHead(206, { etag: `"${mtimeMs}"`, 'content-range': range });
    createReadStream(file, { start, end: last }).pipe(response);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  return {
    url: `http://127.0.0.1:${address.port}/disk`,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
