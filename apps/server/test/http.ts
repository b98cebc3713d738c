import { request } from 'node:http';
import type { Bench } from './support.ts';

/** Where servers of tests show their metrics. */
export const SOCKET = 'run/metrics.sock';
export const METRICS: readonly string[] = ['--metrics', `unix:${SOCKET}`];

/** What an HTTP client gets. */
export function get(
  bench: Bench,
  path: string,
  method = 'GET',
): Promise<{ readonly status: number; readonly type: string; readonly text: string }> {
  return new Promise((resolve, reject) => {
    const asking = request({ socketPath: bench.file(SOCKET), path, method }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (piece: string) => {
        text += piece;
      });
      response.on('end', () =>
        resolve({
          status: response.statusCode ?? 0,
          type: response.headers['content-type'] ?? '',
          text,
        }),
      );
    });
    asking.on('error', reject).end();
  });
}
