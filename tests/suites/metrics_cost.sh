#!/usr/bin/env bash
# What it costs that a run can be watched: `make bench-metrics` (PAIRS=8). Two runs of the same bits (lock-step) side by side,
# one with metrics=, dashboard= and tensorboard=, scraped and watched every second, the other without. Processor seconds of
# all parts are compared, and elapsed time; from pair to pair they change sides and cores.
set -uo pipefail
cd "$(dirname "$0")/../.."
tool=$PWD/${TD_BUILD:-build/release}/bin/tdmpc2 pairs=${PAIRS:-8}
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
words='task=cartpole-swingup model_size=1 steps=700 seed_steps=500 eval_freq=100000 eval_first=false eval_episodes=1
       lockstep=true actors=1 threads=1'
TIMEFORMAT='%U %S %R'

watch() { # DIR: one who scrapes every part each second, and a browser at the dashboard
    local file address
    until address=$(grep -ohE 'http://127[0-9.:]+/' "$1.out" 2>/dev/null); do sleep 0.2; done
    curl -sN --max-time 600 "${address}events" >"$1.seen" 2>/dev/null &
    while sleep 1; do
        for file in "$1"/run/*.metrics.json; do
            address=$(grep -oE '127\.0\.0\.1:[0-9]+' "$file" | head -n 1)
            curl -s --max-time 2 "http://$address/metrics" 2>/dev/null | grep -c '^tdmpc2_' >>"$1.scraped"
        done
    done
}

one() { # DIR CORE WORDS...: processor seconds and elapsed seconds into DIR.time
    local dir=$1 core=$2; shift 2
    { time taskset -c "$core" "$tool" train $words work_dir="$dir" "$@" >"$dir.out" 2>&1; } 2>"$dir.time"
}

for ((pair = 0; pair < pairs; pair++)); do
    rm -rf "$work"/*
    set -m; watch "$work/on" & watcher=$!; set +m
    one "$work/on" $((pair % 2)) metrics=0 dashboard=0 tensorboard=true & first=$!
    one "$work/off" $(((pair + 1) % 2)) tensorboard=false & second=$!
    wait $first $second
    kill -- -$watcher 2>/dev/null; wait $watcher 2>/dev/null
    cmp "$work/on/eval.csv" "$work/off/eval.csv" || { tail -n 3 "$work"/*.out; exit 1; }
    [ "$(paste -sd+ "$work/on.scraped" | bc)" -gt 0 ] && [ -s "$work/on.seen" ] || { echo 'nobody watched the run'; exit 1; }
    echo "$(cat "$work/on.time") $(cat "$work/off.time")"
done | python3 -c '
import sys
from statistics import median
cpu, wall = [], []
for line in sys.stdin:
    try:
        on_user, on_system, on_wall, user, system, plain_wall = map(float, line.split())
    except ValueError:
        sys.exit(line)
    on, off = on_user + on_system, user + system
    cpu.append(100 * (on / off - 1))
    wall.append(100 * (on_wall / plain_wall - 1))
    print(f"pair {len(cpu)}: {on:.2f} and {off:.2f} processor seconds, {cpu[-1]:+.2f} %; elapsed {wall[-1]:+.2f} %", flush=True)
if not cpu:
    sys.exit("no pair of runs came to its end")
print(f"median of {len(cpu)} pairs: {median(cpu):+.2f} % processor time, {median(wall):+.2f} % elapsed time")'
