#!/usr/bin/env bash
# `tdmpc2 doctor`: a good machine is called good, and what is wrong is found.
set -uo pipefail
cd "$(dirname "$0")/../.."
bin=${TD_BUILD:-build/release}/bin
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
good=0 bad=0
# expect WHAT CODE TEXT COMMAND...
expect() {
    local what=$1 code=$2 text=$3 out rc; shift 3
    out=$("$@" 2>&1 </dev/null); rc=$?
    if [ $rc -eq "$code" ] && [[ $out == *"$text"* ]]; then good=$((good + 1)); else
        bad=$((bad + 1)); echo "$what: exit $rc, no \"$text\" in:"; sed 's/^/  | /' <<<"$out"
    fi
}
expect 'a good machine' 0 'a synced write takes' "$bin/tdmpc2" doctor replay_dir="$work"
expect 'models that are gone' 1 'bad  mujoco' env TDMPC2_ASSETS=/nowhere "$bin/tdmpc2" doctor replay_dir="$work"
expect 'no ffmpeg' 0 'no ffmpeg: save_video' env PATH=/nowhere "$bin/tdmpc2" doctor replay_dir="$work"
expect 'a folder that is not there' 1 'bad  sync' "$bin/tdmpc2" doctor replay_dir="$work/none"
expect 'few files' 1 'bad  files' bash -c "ulimit -n 40; '$bin/tdmpc2' doctor replay_dir='$work'"
expect 'nobody there' 1 'bad  skew' "$bin/tdmpc2" doctor ipc://"$work"/nobody replay_dir="$work"
expect 'an address of others' 1 'bad  ports' "$bin/tdmpc2" doctor bind=tcp://192.0.2.1:5555 insecure=true replay_dir="$work"
expect 'an unknown word' 2 'unknown' "$bin/tdmpc2" doctor replaydir=x
ls -A "$work" | grep -q . && { echo "it left files behind"; bad=$((bad + 1)); } || good=$((good + 1))

echo "[==========] $((good + bad)) test(s) run."
echo "[  PASSED  ] $good test(s)."
[ "$bad" -eq 0 ] || { echo "[  FAILED  ] $bad test(s)."; exit 1; }
