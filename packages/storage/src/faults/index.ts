export { type FaultyDriver, faulty } from './faulty.ts';
export type { FaultOperation, FaultRule, FiredFault } from './rules.ts';
