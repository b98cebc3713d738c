#!/usr/bin/env bash
# Stands in for qemu-img in QEMU's iotests: `downfold` does what it has, qemu-img the rest.
#   DOWNFOLD       the command line to run, words divided by blanks
#   REAL_QEMU_IMG  qemu-img
#   TEST_DIR       its file "calls" gets a line per call: `downfold` or `qemu-img`, and the verb
# What downfold differs in on purpose (docs/qemu-img.md) and a test does not ask about is undone here, in the functions below.
set -u

verb=${1:-}
args=("$@")

real() {
  echo "qemu-img $verb" >>"$TEST_DIR/calls"
  exec "$REAL_QEMU_IMG" "${args[@]}"
}

# Options that say other things than a file of a format that both know, or ask for QEMU's own help.
foreign() {
  local arg previous=
  for arg in "${args[@]}"; do
    case $previous in
      -f | -F | -O | -B) [[ $previous == -B || $arg == qcow2 || $arg == raw ]] || return 0 ;;
    esac
    case $arg in
      --object* | --image-opts | --target-image-opts | --source-* | --trace* | -h | --help | help | \? | *=help | *,help | *=\? | \
        json:* | nbd:* | nbd+* | ssh:* | nfs:* | fuse:* | blkdebug:* | blkverify:* | null-*:* | http*:* | driver=* | \
        *encrypt.format=* | *encryption=on* | *data_file=* | *extent_size_hint=* | *nocow=*) return 0 ;;
    esac
    previous=$arg
  done
  return 1
}

# The format of a file, by its first bytes: qemu-img looks into the file where a command line has no -f. Ends with a status when it is neither.
format_of() {
  case $(head -c 4 "$1" | od -An -tx1) in
    ' 51 46 49 fb') echo qcow2 ;;
    ' 4b 44 4d 56' | ' 51 45 44 00' | ' 23 20 44 69' | ' 3c 3c 3c 20' | ' 76 68 64 78') return 1 ;;
    *) echo raw ;;
  esac
}

has() {
  [[ " ${args[*]} " == *" $1 "* || " ${args[*]} " =~ " $1"(qcow2|raw)" " ]]
}

# Says the formats that the command line leaves out: of the first file, and of the second that `compare` has.
said() {
  local arg format skip='' files=()
  if [[ $verb == create ]]; then
    has -f || args=(create -f raw "${args[@]:1}")
    return
  fi
  for arg in "${args[@]:1}"; do
    arg=${arg#if=}
    [[ -f $arg && -z $skip ]] && files+=("$arg")
    case $arg in -b | -F | -o | -B | -l | -c | -a | -d) skip=1 ;; *) skip= ;; esac
  done
  if ! has -f && ((${#files[@]} > 0)); then
    format=$(format_of "${files[0]}") || real
    args=("$verb" -f "$format" "${args[@]:1}")
  fi
  if [[ $verb == compare ]] && ! has -F && ((${#files[@]} > 1)); then
    format=$(format_of "${files[1]}") || real
    args=("$verb" -F "$format" "${args[@]:1}")
  fi
}

# qemu-img creates over a file that is there.
overwritten() {
  local arg previous=
  for arg in "${args[@]:1}"; do
    [[ -f $arg && ! $previous =~ ^(-b|-o|-f|-F)$ ]] && rm -f "$arg"
    previous=$arg
  done
}

case $verb in
  info | map | check | compare | create | commit | rebase | convert | resize | measure | snapshot | bitmap | amend | dd) ;;
  *) real ;;
esac
foreign && real
said
[[ $verb == create ]] && overwritten
[[ $verb == commit ]] && args=(commit --invalidate-siblings --ignore-unreadable "${args[@]:1}")

echo "downfold $verb" >>"$TEST_DIR/calls"
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
# shellcheck disable=SC2086 # words
$DOWNFOLD "${args[@]}" >"$out/stdout" 2>"$out/stderr"
code=$?
# qemu-img's stdout is full before it is written: what it says on stderr comes first
sed -E 's/^downfold: /qemu-img: /' "$out/stderr" >&2
case $verb in
  commit | rebase) sed -E '/^Image rebased\.$/d; /^  /d' "$out/stdout" ;;
  *) cat "$out/stdout" ;;
esac
exit "$code"
