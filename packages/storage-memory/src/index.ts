export { type CrashOptions, type CrashState, crashStates } from './crash-states.ts';
export {
  type DiskObserver,
  type FileChange,
  memoryBackend,
  memoryBackendDriver,
  type NameChange,
} from './memory-backend.ts';
export { MemoryDisk } from './memory-disk.ts';
export { type LogEntry, type Recording, record } from './recording.ts';
