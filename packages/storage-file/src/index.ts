export { type Calls, nodeCalls } from './calls.ts';
export { fileBackend, fileBackendDriver } from './file-backend.ts';
