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

# Whether --image-opts names a plain file of a format that both know, and at most its secret.
plain_opts() {
  local part
  for part in ${1//,/ }; do
    case $part in
      driver=qcow2 | driver=raw | file.driver=file | file.filename=* | encrypt.format=luks | encrypt.key-secret=*) ;;
      *) return 1 ;;
    esac
  done
  [[ ,$1 == *,driver=* && ,$1 == *,file.filename=* ]]
}

# Options that say other things than a file of a format that both know, or ask for QEMU's own help.
foreign() {
  local arg previous='' opts=''
  for arg in "${args[@]}"; do
    [[ $arg == --image-opts ]] && opts=1
    case $previous in
      --object) [[ $arg == secret,* || $arg == qom-type=secret,* ]] || return 0 ;;
      -f | -F | -O | -B) [[ $previous == -B || $arg == qcow2 || $arg == raw ]] || return 0 ;;
    esac
    case $arg in
      --object=* | --target-image-opts | --source-* | --trace* | -h | --help | help | \? | *=help | *,help | *=\? | \
        json:* | nbd:* | nbd+* | ssh:* | nfs:* | fuse:* | blkdebug:* | blkverify:* | null-*:* | http*:* | \
        *encrypt.format=aes* | *encryption=on* | *extent_size_hint=* | *nocow=*) return 0 ;;
      *.filename=* | driver=*) [[ -n $opts && $verb != info ]] && plain_opts "$arg" || return 0 ;;
      encrypt.* | *,encrypt.*) [[ $verb != amend ]] || return 0 ;;
      *data_file=* | *data_file_raw=*) [[ $verb == create ]] || return 0 ;;
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
  [[ " ${args[*]} " == *' --image-opts '* ]] && return
  if ! has -f && ((${#files[@]} > 0)); then
    format=$(format_of "${files[0]}") || real
    args=("$verb" -f "$format" "${args[@]:1}")
  fi
  if [[ $verb == compare ]] && ! has -F && ((${#files[@]} > 1)); then
    format=$(format_of "${files[1]}") || real
    args=("$verb" -F "$format" "${args[@]:1}")
  fi
}

# qemu-img creates over a file that is there, and empties a data file.
overwritten() {
  local arg previous='' data
  for arg in "${args[@]:1}"; do
    [[ -f $arg && ! $previous =~ ^(-b|-o|-f|-F)$ ]] && rm -f "$arg"
    data=${arg##*data_file=}
    [[ $data != "$arg" ]] && rm -f "${data%%,*}"
    previous=$arg
  done
}

# downfold takes secrets in files, and none in an argument, which everybody on the machine can read.
hidden() {
  local index id data format
  for index in "${!args[@]}"; do
    [[ ${args[index]} == *secret,*data=* ]] || continue
    id=${args[index]##*id=} data=${args[index]##*data=} format=raw
    [[ ${args[index]} == *format=base64* ]] && format=base64
    printf %s "${data%%,*}" >"$out/secret$index"
    args[index]="secret,id=${id%%,*},file=$out/secret$index,format=$format"
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

case $verb in
  info | create) ;;
  *) args=("$verb" --allow-data-file "${args[@]:1}") ;;
esac

echo "downfold $verb" >>"$TEST_DIR/calls"
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
hidden
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
