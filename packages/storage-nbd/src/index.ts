export { type NbdBackendOptions, nbdBackend, nbdBackendDriver } from './nbd-backend.ts';
