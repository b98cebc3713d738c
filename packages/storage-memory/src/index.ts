export { type CrashOptions, type CrashState, crashStates } from './crash-states.ts';
export { durableDisk } from './durability.ts';
export { memoryBackend, memoryBackendDriver } from './memory-backend.ts';
export { MemoryDisk } from './memory-disk.ts';
export type { Change, DiskObserver, FileChange, NameChange } from './observer.ts';
export { type Flush, type LogEntry, type Recording, record } from './recording.ts';
