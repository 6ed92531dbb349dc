#!/usr/bin/env bash
# What a run shows, read by those it is for: promtool, a real Prometheus, the real tensorboard package.
#   make test-monitoring       (installs Debian's prometheus, needs root or sudo; tensorboard into third_party/tensorboard)
set -uo pipefail
root=$PWD bin=$PWD/$TD_BUILD/bin
work=$(mktemp -d) good=0 bad=0 pids=()
leave() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null; done
    wait
    rm -rf "$work"
}
trap leave EXIT
ok() { good=$((good + 1)); printf 'ok    %s\n' "$*"; }
no() { bad=$((bad + 1)); printf 'FAIL  %s\n' "$*"; }
check() { local what=$1; shift; if "$@" >"$work/out" 2>&1; then ok "$what"; else no "$what"; sed 's/^/      | /' "$work/out" | tail -n 20; fi; }
# until SECONDS COMMAND...
until_true() { local end=$((SECONDS + $1)); shift; until "$@"; do [ $SECONDS -lt $end ] || return 1; sleep 0.3; done; }

need() { # PROGRAM PACKAGE
    command -v "$1" >/dev/null && return
    local as=(); [ "$(id -u)" -eq 0 ] || as=(sudo)
    # its service is not ours to start
    "${as[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y --no-install-recommends "$2" >/dev/null 2>&1 ||
        { echo "cannot install $2" >&2; exit 2; }
}
need promtool prometheus
need curl curl

check 'alert rules' promtool check rules deploy/monitoring/alerts.yml
check "alert rules' unit tests" promtool test rules deploy/monitoring/alerts_test.yml
check 'configuration' promtool check config deploy/monitoring/prometheus.yml

# every expression of the dashboard, as recording rules: Prometheus parses them
python3 - "$work/dashboard.yml" <<'P'
import json, sys
rules = [t["expr"].replace("$run", ".*") for p in json.load(open("deploy/monitoring/grafana.json"))["panels"] for t in p.get("targets", [])]
assert len(rules) > 20
json.dump({"groups": [{"name": "d", "rules": [{"record": "d%d" % i, "expr": e} for i, e in enumerate(rules)]}]}, open(sys.argv[1], "w"))
P
check 'expressions of the dashboard' promtool check rules "$work/dashboard.yml"

# --- a real run under a real Prometheus ---
run=$work/run
"$bin/tdmpc2" train task=toy steps=1000000 seed_steps=200 model_size=1 batch_size=16 mpc=false actors=2 eval_freq=500 \
    eval_episodes=1 metrics=0 work_dir="$run" checkpoint_every=5 >"$work/train.log" 2>&1 &
train=$!; pids+=($train)
five() { [ "$(ls "$run"/run/*.metrics.json 2>/dev/null | wc -l)" -eq 5 ]; }
until_true 30 five && ok 'five parts say where they are' || no 'five parts say where they are'

cat >"$work/prometheus.yml" <<P
global: {scrape_interval: 1s}
rule_files: [$root/deploy/monitoring/alerts.yml, $work/dashboard.yml]
scrape_configs:
  - job_name: tdmpc2
    file_sd_configs: [{files: ['$run/run/*.metrics.json'], refresh_interval: 1s}]
P
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
prometheus --config.file="$work/prometheus.yml" --storage.tsdb.path="$work/tsdb" --web.listen-address=127.0.0.1:$port \
    >"$work/prometheus.log" 2>&1 &
pids+=($!)
# ask QUERY: values, one a line
ask() { curl -s "http://127.0.0.1:$port/api/v1/query" --data-urlencode "query=$1" |
    python3 -c 'import json, sys; [print(r["value"][1]) for r in json.load(sys.stdin)["data"]["result"]]' 2>/dev/null; }
is() { [ "$(ask "$1")" = "$2" ]; }
until_true 40 is 'count(up{job="tdmpc2"} == 1)' 5 && ok 'Prometheus scrapes all five' || { no 'Prometheus scrapes all five'; tail -5 "$work/prometheus.log"; }

for file in "$run"/run/*.metrics.json; do
    target=$(grep -oE '[0-9.]+:[0-9]+' "$file" | head -1)
    curl -s "http://$target/metrics" >"$work/metrics.txt"
    [ "$(grep -c ^tdmpc2_ "$work/metrics.txt")" -gt 15 ] || no "$target shows next to nothing"
    check "promtool check metrics, $(basename "$file")" bash -c 'out=$(promtool check metrics <"$1" 2>&1) && [ -z "$out" ] || { echo "$out"; exit 1; }' _ "$work/metrics.txt"
done

# the same numbers as the stats socket's: counters of both, asked within a moment
close_to() {
    local here there
    there=$("$bin/tdmpc2" stats "$run" --json | python3 -c 'import json, sys; print([p for p in json.load(sys.stdin)["parts"] if p["role"] == "learner"][0]["metrics"]["updates"])')
    here=$(ask 'tdmpc2_updates_total{role="learner"}')
    python3 -c "import sys; a, b = float('$here'), float('$there'); sys.exit(not (b > 0 and 0.5 * b - 50 < a <= b))"
}
until_true 30 close_to && ok "updates equal the stats socket's" || no "updates equal the stats socket's"
trains() { [ "$(ask 'rate(tdmpc2_updates_total[10s]) > bool 0')" = 1 ]; }
until_true 30 trains && ok 'updates have a rate' || no 'updates have a rate'

pid=$(grep -o '"pid":[0-9]*' "$run/run/actor-0.addr" | cut -d: -f2)
kill -KILL "$pid"
down() { is 'count(up{job="tdmpc2"} == 1)' 5; }
until_true 40 down && ok 'an actor that was killed is found again' || no 'an actor that was killed is found again'

# --- what a scrape takes: one after another, of the learner at work ---
target=$(grep -oE '[0-9.]+:[0-9]+' "$run/run/learner-0.metrics.json" | head -1)
p99() { for _ in $(seq 100); do curl -s -o /dev/null -w '%{time_total}\n' "http://$target/metrics"; sleep 0.02; done | sort -n | sed -n 99p; }
quick() { p99=$(p99); python3 -c "import sys; sys.exit(not 0.00005 < $p99 < 0.020)"; } # others may have the processor
until_true 30 quick && ok "p99 of /metrics $p99 s" || no "p99 of /metrics $p99 s"

kill -TERM $train; wait $train
none() { ! ls "$run"/run/*.metrics.json >/dev/null 2>&1; }
none && ok 'parts that left are no targets' || { no 'parts that left are no targets'; ls "$run/run"; }

# --- event files ---
board=third_party/tensorboard
[ -x $board/bin/python ] && $board/bin/python -c 'import tensorboard' 2>/dev/null ||
    { python3 -m venv $board && $board/bin/pip install --quiet --disable-pip-version-check tensorboard==2.21.0; } || exit 2
check 'event files of that run, read by tensorboard' $board/bin/python tests/suites/read_events.py "$run"

# lock-step, killed and resumed: what it went back over is shown once
lock=$work/lockstep
step() { "$bin/tdmpc2" train task=toy lockstep=true steps=$1 seed_steps=100 model_size=1 batch_size=16 mpc=false eval_freq=200 \
    eval_episodes=1 checkpoint_steps=150 work_dir="$lock" >>"$work/lock.log" 2>&1; }
step 900 & stepper=$!
far() { [ "$(tail -n 1 "$lock/train.csv" 2>/dev/null | cut -d, -f1)" -gt 400 ] 2>/dev/null; }
until_true 120 far && ok 'lock-step went on' || no 'lock-step went on'
kill -KILL $(grep -ho '"pid":[0-9]*' "$lock"/run/learner-0.addr | cut -d: -f2)
wait $stepper # it starts the learner again
check 'event files of a learner that was killed, read by tensorboard' $board/bin/python tests/suites/read_events.py "$lock" 2

echo "$good passed, $bad failed"
[ $bad -eq 0 ]
