#!/usr/bin/env bash
# `tdmpc2 bench actors` leaves nothing behind: neither when it is told to stop nor, from its next start on,
# when it is killed.
set -uo pipefail
cd "$(dirname "$0")/../.."
bench=$(realpath "${TD_BUILD:-build/release}")/bin/tdmpc2
folder=$(mktemp -d "$([ -w /dev/shm ] && echo /dev/shm || echo "${TMPDIR:-/tmp}")/tdmpc2-bench-XXXXXX")
cd "$folder" || exit 1
tiny="task=cartpole-balance enc_dim=16 mlp_dim=16 latent_dim=16 num_samples=16 num_elites=4 num_pi_trajs=4 batch_size=16 num_q=2"
pid=
passed=0
bad=0
trap '[ -z "$pid" ] || kill -9 "$pid" 2> /dev/null; rm -rf "$folder"' EXIT

check() { # words, then a command that must succeed
    local words=$1; shift
    if "$@"; then echo "[       OK ] $words"; passed=$((passed + 1)); else echo "[  FAILED  ] $words"; bad=$((bad + 1)); fi
}

within() { # seconds, then a command that must come true
    local left=$(($1 * 10)); shift
    until "$@" 2> /dev/null; do
        left=$((left - 1))
        [ $left -gt 0 ] || return 1
        sleep 0.1
    done
}

start() {
    # shellcheck disable=SC2086
    "$bench" bench actors seconds=1 $tiny > out.txt 2>&1 &
    pid=$!
    within 60 test -e "build/bench-actors-$pid/run/actor-0.addr"
}

# Our programs that work in this folder; some may be on their way out.
none_left() { ! grep -lsz -- "bench-actors-$1" /proc/[0-9]*/cmdline > /dev/null; }
none_of() { [ -z "$(ls -d build/bench-actors-* 2> /dev/null)" ]; }

check "a run starts" start
kill -TERM "$pid"
wait "$pid"
check "interrupted: not a success" test $? -ne 0
check "interrupted: it says so" grep -q interrupted out.txt
check "interrupted: no process is left" within 20 none_left "$pid"
check "interrupted: no folder is left" none_of

check "another run starts" start
killed=$pid
kill -KILL "$pid"
wait "$pid" 2> /dev/null
check "killed: no process is left" within 30 none_left "$killed"
check "a third run starts" start
check "the folder of the killed one is gone" test ! -e "build/bench-actors-$killed"
kill -TERM "$pid"
wait "$pid"
check "and nothing is left" none_of
pid=

if [ $bad -eq 0 ]; then echo "[  PASSED  ] $passed test(s)."; else echo "[  FAILED  ] $bad test(s)."; exit 1; fi
