export { assertSameBytes } from './bytes.ts';
export type { CaseContext, ComplianceCase, SubjectFactory, TestFunction } from './cases.ts';
export { type ForeignServer, foreignServer, type ServerPlace } from './foreign-server.ts';
export {
  forSeeds,
  hostileJson,
  mangle,
  Punctual,
  Random,
  recut,
  talk,
  withinASecond,
} from './fuzz.ts';
export { httpServer } from './http-server.ts';
export { comparedInClear, makeEncrypted, secretObject, untilTimed } from './qemu-secret.ts';
export { caseContext, seededRandom } from './random.ts';
export { applies, killers, runCase, verify } from './run.ts';
export { currentTier, perTier, type Tier } from './tier.ts';
export { outputOf, runTool, type ToolEnd, type ToolOptions } from './tool.ts';
