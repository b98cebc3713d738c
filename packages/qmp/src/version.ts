/** What a server says it is; QEMU's clients read `qemu`, so let it be the version whose QMP is spoken. */
export interface QmpVersion {
  readonly qemu: { readonly major: number; readonly minor: number; readonly micro: number };
  readonly package: string;
}
