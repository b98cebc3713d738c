#!/usr/bin/env bash
# Makes the initramfs of the guest:   initramfs.sh GUEST OUT
# GUEST is what `fetch.sh guest` printed; what the guest does is guest-init.sh, beside this file.
set -euo pipefail

guest=$1 out=$2
here=$(cd "$(dirname "$0")" && pwd)
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

mkdir -p "$root"/{bin,dev,mnt,modules,proc,sys}
cp "$guest/busybox" "$root/bin/"
for name in virtio virtio_ring virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk; do
  cp "$guest/modules/$name.ko" "$root/modules/"
done
install -m 755 "$here/guest-init.sh" "$root/init"
(cd "$root" && find . | "$guest/busybox" cpio -o -H newc 2>/dev/null) >"$out"
