// A thread that decompresses clusters, one message after the other; see decoder.ts. Imports no package: as a source it runs without a build.
import { parentPort } from 'node:worker_threads';
import { type Packed, unpackClusters } from './unpack.ts';

const port = parentPort;
if (port === null) throw new Error('runs in a worker thread only');
port.on('message', (job: Packed) => port.postMessage(unpackClusters(job)));
