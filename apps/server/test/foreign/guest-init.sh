#!/bin/busybox sh
# What the guest does, as its first process: writes files to its disk, and says so line by line on its console, until it is told to stop; then it says what
# the disk has to hold, lets go of it, and shuts down.
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev

give_up() {
  echo "FAILED: $*"
  dmesg | tail -n 20
  # power goes before the console has sent everything
  sleep 3
  poweroff -f
}

for module in virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk; do
  insmod "/modules/$module.ko" || give_up "module $module"
done
mount -t ext4 -o discard /dev/vda /mnt || give_up 'no disk'
# an error of the disk may not pass unseen
trap 'give_up "a command failed"' EXIT
set -e

manifest=/manifest
cp /mnt/manifest "$manifest"
cd /mnt

# write FILE CLUSTERS SKIP: new bytes in a part of a file
write() { dd if=/dev/urandom of="$1" bs=4k count="$2" seek="$3" conv=notrunc 2>/dev/null; }

# forget FILE; note FILE
forget() { sed -i "/  $1\$/d" "$manifest"; }
note() {
  forget "$1"
  md5sum "$1" >>"$manifest"
}

# A file of which the manifest knows.
any() { sed -n "$((RANDOM % $(wc -l <"$manifest") + 1))s/.*  //p" "$manifest"; }

check() {
  sync
  echo 3 >/proc/sys/vm/drop_caches
  md5sum -c "$manifest" >/tmp.check 2>&1 || give_up "wrong: $(grep -v ': OK$' /tmp.check | head -n 5)"
}

# the console is the only way in
(read -r _ && touch /stop) </dev/console &

echo 'up'
round=0
while [ ! -e /stop ]; do
  round=$((round + 1))
  write "file-$round" $((RANDOM % 48 + 1)) 0
  note "file-$round"
  old=$(any)
  write "$old" $((RANDOM % 8 + 1)) $((RANDOM % 16))
  note "$old"
  if [ $((round % 3)) = 0 ]; then
    old=$(any)
    rm "$old"
    forget "$old"
  fi
  if [ $((round % 2)) = 0 ]; then sync; fi
  if [ $((round % 12)) = 0 ]; then check; fi
  echo "round $round"
done
check
cd /
umount /mnt
echo manifest
cat "$manifest"
echo 'end of manifest'
trap - EXIT
# until all of it was heard: power goes before the console has sent everything
read -r _ </dev/console
poweroff -f
