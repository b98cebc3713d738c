export { type HttpBackendOptions, httpBackend, httpBackendDriver } from './http-backend.ts';
