#!/usr/bin/env bash
# Fetches what tests need of Debian's and nobody has to install, and prints the directory that holds it:
#   fetch.sh guest DIR   a kernel, its modules, and busybox
#   fetch.sh qmp DIR     QEMU's own QMP client, the Python package qemu.qmp
# Below DIR it is kept: what is there is not fetched again. apt works there too, with the archive's keys, and changes nothing of the system.
set -euo pipefail

what=$1
mkdir -p "$2"
cache=$(cd "$2" && pwd)
kept=$cache/$what
if [[ -d $kept ]]; then
  echo "$kept"
  exit
fi
new=$(mktemp -d "$cache/$what.XXXXXX")
trap 'rm -rf "$new"' EXIT

# The system's sources of Debian, with deb-src.
sources() {
  local file found=0
  mkdir "$new/sources"
  for file in /etc/apt/sources.list /etc/apt/sources.list.d/debian*; do
    [[ -f $file ]] || continue
    found=1
    sed -E -e 's/^Types:.*/Types: deb deb-src/' -e 's/^deb( .*)/&\ndeb-src\1/' "$file" >"$new/sources/${file##*/}"
    [[ $file == *.list || $file == *.sources ]] || mv "$new/sources/${file##*/}"{,.list}
  done
  ((found == 1)) || { echo 'no /etc/apt/sources.list, no /etc/apt/sources.list.d/debian*: is this Debian?' >&2; return 1; }
}

apt() {
  local program=$1
  shift
  "$program" -qq -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$new/sources" -o Dir::State::lists="$new/lists" \
    -o Dir::Cache="$new/cache" -o APT::Sandbox::User=root -o Acquire::Retries=3 "$@" >&2
}

package() {
  apt apt-get download "$1"
  dpkg-deb -x "$1"_*.deb extracted
}

guest() {
  local kernel
  kernel=$(apt apt-cache depends linux-image-cloud-amd64 2>&1 | sed -n 's/.*Depends: \(linux-image-[^ ]*\)$/\1/p')
  package "$kernel"
  package busybox-static
  mkdir -p kept/modules
  mv extracted/boot/vmlinuz-* kept/vmlinuz
  mv extracted/lib/modules/*/kernel/drivers/{virtio/*,block/virtio_blk}.ko kept/modules/
  mv "$(find extracted -path '*bin/busybox')" kept/
}

qmp() {
  apt apt-get source --download-only qemu
  mkdir kept
  tar -xf qemu_*.orig.tar.* -C kept --strip-components=2 --wildcards '*/python/qemu/qmp/*'
}

mkdir -p "$new/work" "$new/lists/partial" "$new/cache/archives/partial"
cd "$new/work"
sources
apt apt-get update
"$what"
# at once, and by one of many
mv -T kept "$kept" 2>/dev/null || [[ -d $kept ]]
echo "$kept"
