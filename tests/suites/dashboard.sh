#!/usr/bin/env bash
# The dashboard of a real run in a real Chromium, driven by playwright-core.
#   make test-dashboard        (installs Debian's chromium and nodejs; playwright-core from npm into third_party/)
# PICTURES=DIR keeps what it looked like.
set -uo pipefail
bin=$PWD/$TD_BUILD/bin
work=$(mktemp -d) run=$work/run pids=()
leave() {
    # a check that failed may have left the learner stopped
    for pid in "${pids[@]}" $(grep -ho '"pid":[0-9]*' "$run"/run/*.addr 2>/dev/null | cut -d: -f2); do kill -CONT "$pid" 2>/dev/null; done
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null; done
    wait
    rm -rf "$work"
}
trap leave EXIT

need() { # PROGRAM PACKAGE
    command -v "$1" >/dev/null && return
    local as=(); [ "$(id -u)" -eq 0 ] || as=(sudo)
    "${as[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$2" >/dev/null 2>&1 ||
        { echo "cannot install $2" >&2; exit 2; }
}
need chromium chromium
need node nodejs
need ffmpeg ffmpeg

# playwright-core alone has no dependency; npm is asked for one archive, whose hash is known.
playwright=third_party/playwright-core-1.49.1
if [ ! -f $playwright/index.mjs ]; then
    need npm npm
    (cd "$work" && npm pack --silent playwright-core@1.49.1 >/dev/null 2>"$work/npm.log") || { cat "$work/npm.log" >&2; exit 2; }
    echo "fc7544a2dbc24341dfc63c4a67c62ce593bc2e7e3257690f2d12d2f7d2b2d636  $work/playwright-core-1.49.1.tgz" | sha256sum --check --quiet || exit 2
    rm -rf $playwright && mkdir -p $playwright && tar -xzf "$work/playwright-core-1.49.1.tgz" -C $playwright --strip-components=1 || exit 2
fi

# a learner that is started again is found again where it was
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$bin/tdmpc2" train task=cartpole-balance steps=100000 seed_steps=600 model_size=1 batch_size=64 utd=0.25 actors=1 eval_freq=500 eval_episodes=1 \
    save_video=true dashboard=$port buffer_size=3000 exp_name='<img src=x onerror=document.title="broken">' work_dir="$run" \
    >"$work/train.log" 2>&1 </dev/null &
train=$!; pids+=($train)
for (( i = 0; i < 300; i++ )); do grep -q '^dashboard: ' "$work/train.log" && break; sleep 0.1; done
address=$(sed -n 's|^dashboard: \(http://.*/\)$|\1|p' "$work/train.log")
[ -n "$address" ] || { cat "$work/train.log"; exit 1; }
# one more actor, that nobody starts again when it is killed
"$bin/tdmpc2-actor" learner="@$run" actor=1 work_dir="$run" >"$work/actor.log" 2>&1 </dev/null &
actor=$!; pids+=($actor)
# enough for a few evaluations and videos
for (( i = 0; i < 1800; i++ )); do [ "$(wc -l <"$run/eval.csv" 2>/dev/null || echo 0)" -ge 3 ] && break; sleep 0.1; done

NODE_OPTIONS= PLAYWRIGHT=$PWD/$playwright/index.mjs ADDRESS=$address RUN=$run TOOL=$bin/tdmpc2 ACTOR=$actor TRAIN=$train PICTURES=${PICTURES:-} \
    CHROMIUM=$(command -v chromium) node tests/suites/dashboard.mjs
code=$?
[ $code -eq 0 ] || tail -n 5 "$work/train.log" "$work/actor.log"
exit $code
