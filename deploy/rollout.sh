#!/bin/sh
# Brings releases to a fleet from a laptop or a CI job: the repository to the machine that serves it, and rollouts by the
# `hub` command there. Needs sh, and ssh where the hub is on another machine.
#
# Laws:
# 1. What is published is never half there: targets first, then metadata, timestamp.json last and in one step.
# 2. What is published is whole: `hub` writes timestamp.json after all that it names, so where that is the same before and
#    after everything was read, what it names was read. Else it is read again.
# 3. The exit status is the answer: 0 complete, 1 it did not go through, 2 it could not be done.
set -eu
LC_ALL=C
export LC_ALL
CDPATH=''

HUB=/opt/weakspot/bin/hub
CONFIG=/etc/weakspot-hub/hub.toml
# Run in .incoming, beside targets/ and metadata/: each file is moved into its place, and what names the others comes last.
PLACE='{ find targets metadata -type f ! -name timestamp.json | sort -r; echo metadata/timestamp.json; } |
  while IFS= read -r file; do mkdir -p "../${file%/*}" && mv -f "$file" "../$file" || exit 1; done && cd .. && rm -rf .incoming'

usage() {
  cat <<'HELP'
Bring releases to a fleet from a laptop or a CI job.

  rollout.sh publish REPOSITORY TARGET
      Copy a repository of `hub release` to where it is served: TARGET is a folder, or HOST:FOLDER over ssh.

  rollout.sh [--on HOST] start RELEASE [options of `hub rollout start`]
      Begin a rollout and follow it to its end.

  rollout.sh [--on HOST] follow [MODEL]
      Follow one that was begun.

  rollout.sh [--on HOST] halt|resume|back [MODEL]
      Halt it, let it go on, or send every device back.

Without --on, the `hub` of this machine is called, in this folder. With it, /opt/weakspot/bin/hub on HOST, as the user
weakspot-hub with /etc/weakspot-hub/hub.toml, as README.md beside this script sets it up.

Exit status: 0 done, with `start` and `follow` complete; 1 halted, stopped or rolled back; 2 it could not be done.
HELP
}

die() {
  printf 'rollout.sh: %s\n' "$1" >&2
  exit 2
}

quote() { # WORD: as one word of a shell
  printf "'%s'" "$(printf '%s' "$1" | sed "s/'/'\\\\''/g")"
}

rollout() { # ARGUMENTS: run `hub rollout` where it is
  status=0
  if [ -z "$host" ]; then
    command -v hub >/dev/null || die 'there is no command `hub` here; with --on HOST it is called there'
    hub rollout "$@" || status=$?
  else
    words=''
    for word in "$@"; do words="$words $(quote "$word")"; done
    # shellcheck disable=SC2029  # the words are quoted for the other side
    ssh -- "$host" "sudo -u weakspot-hub $HUB rollout$words --config $CONFIG" </dev/null || status=$?
    [ "$status" -lt 255 ] || die "ssh does not reach $host"
  fi
  [ "$status" -le 1 ] || exit 2
  return "$status"
}

there() { # COMMAND: run a command of a shell where the repository is served
  # shellcheck disable=SC2029  # the words are quoted for the other side
  if [ -z "$host" ]; then sh -c "$1"; else ssh -- "$host" "$1"; fi
}

pack() { # law 2
  cp "$repository/metadata/timestamp.json" "$work/timestamp.json" &&
    tar -C "$repository" -X "$work/there" -cf "$work/new.tar" targets metadata &&
    cmp -s "$repository/metadata/timestamp.json" "$work/timestamp.json"
}

publish() {
  [ $# -eq 2 ] || die 'publish takes REPOSITORY and TARGET; `rollout.sh --help` shows how'
  repository=$1
  case $2 in
    '' | -*) die "'$2' is not a folder" ;;
    *:*) host=${2%%:*} folder=${2#*:} ;;
    *) host='' folder=$2 ;;
  esac
  [ -f "$repository/metadata/timestamp.json" ] || die "$repository is not a repository of \`hub release\`"
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  at=$(quote "$folder")
  there "mkdir -p $at && cd $at && rm -rf .incoming && mkdir .incoming && { [ ! -d targets ] || find targets -type f; }" \
    >"$work/there" || die "cannot write to $2"
  # A target's name holds its hash: what is there is there whole, and is not sent again.
  printf '%s\n' '.*.part' >>"$work/there" # what is being written
  tries=3
  until pack; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || die "cannot read $repository, or it changes all the time"
  done
  there "cd $at/.incoming && tar -xf - && $PLACE" <"$work/new.tar" || die "cannot copy to $2; what was there is as it was"
  echo "$2 is up to date"
}

start() {
  [ $# -ge 1 ] || die 'start takes a RELEASE; `rollout.sh --help` shows how'
  begun=$(rollout start "$@") || exit 2
  printf '%s\n' "$begun"
  follow "$(printf '%s\n' "$begun" | sed -n 's/^next: hub rollout status //p')"
}

follow() {
  rollout status "$@" --wait
}

for argument; do
  case $argument in -h | --help) usage && exit 0 ;; esac
done
host=''
if [ "${1:-}" = --on ]; then
  [ $# -ge 2 ] || die '--on takes a HOST'
  case $2 in '' | -* | *[!A-Za-z0-9@._:-]*) die "'$2' is not a host" ;; esac
  host=$2
  shift 2
fi
case ${1:-} in
  publish | start | follow) "$@" ;;
  halt | resume) rollout "$@" ;;
  back)
    shift
    rollout rollback "$@"
    ;;
  '') usage >&2 && exit 2 ;;
  *) die "unknown command '$1'; \`rollout.sh --help\` shows how" ;;
esac
