import type { OperationOptions } from '@downfold/storage';

/** One thing found wrong. `leak`: counted but not referenced (harmless). `corruption`: anything worse. */
export interface CheckFinding {
  readonly severity: 'leak' | 'corruption';
  /** One line for people, naming the structure. */
  readonly message: string;
  /** Byte in the file, or null. */
  readonly offset: number | null;
}

/** Options of a check. */
export interface CheckOptions extends OperationOptions {
  /** Called for each finding as it is made. */
  readonly onFinding?: (finding: CheckFinding) => void;
}

/** The sum of a check. Counts are clusters, as `qemu-img check` counts them. */
export interface CheckReport {
  readonly corruptions: number;
  readonly leaks: number;
  /** Guest clusters of the disk; how many are mapped, mapped not next to their predecessor, and compressed. */
  readonly totalClusters: number;
  readonly allocatedClusters: number;
  readonly fragmentedClusters: number;
  readonly compressedClusters: number;
  /** First byte after the last cluster in use. */
  readonly imageEndOffset: number;
}
