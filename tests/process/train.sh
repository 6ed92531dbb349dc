#!/usr/bin/env bash
# `tdmpc2 train` with stand-ins for learner and actor: the signal table of the protocol, restarts, exit
# codes, what is printed. The stand-ins are shell scripts beside a copy of the program.
set -u
build=${TD_BUILD:-build/release}
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
mkdir "$work/bin"; cp "$build/bin/tdmpc2" "$work/bin/"
out=$work/out
. tests/support/checks.sh

cat >"$work/bin/tdmpc2-learner" <<'END'
#!/usr/bin/env bash
for word in "$@"; do case $word in work_dir=*) dir=${word#work_dir=} ;; esac; done
event() { echo "$*" >>"$dir/events"; }
event "learner start $*"
trap 'event learner term; exit 0' TERM
[ -n "${LEARNER_SAYS:-}" ] && echo "$LEARNER_SAYS"
[ -n "${LEARNER_EARLY:-}" ] && { echo "a reason to stop"; exit "$LEARNER_EARLY"; }
mkdir -p "$dir/run"
printf '{"role":"learner","id":0,"pid":%d,"process":"1","run":"00000000000000ab","stats":"","control":"ipc:///tmp/none"}\n' \
    $$ >"$dir/run/.new"; mv "$dir/run/.new" "$dir/run/learner-0.addr"
[ -n "${LEARNER_KILLED:-}" ] && [ "$(grep -c 'learner start' "$dir/events")" -le "$LEARNER_KILLED" ] && { sleep 0.3; kill -9 $$; }
[ -n "${LEARNER_CODE:-}" ] && { sleep 0.8; event learner end; exit "$LEARNER_CODE"; }
for (( i = 0; i < 300; i++ )); do sleep 0.1; done
END
cat >"$work/bin/tdmpc2-actor" <<'END'
#!/usr/bin/env bash
for word in "$@"; do case $word in work_dir=*) dir=${word#work_dir=} ;; actor=*) name=actor-${word#actor=} ;; esac; done
event() { echo "$*" >>"$dir/events"; }
event "$name start $*"
[ -n "${ACTOR_DEAF:-}" ] && trap '' TERM || trap 'event $name term; sleep 0.3; event $name end; exit 0' TERM
[ "$name" = actor-0 ] && [ -n "${ACTOR_CODE:-}" ] && [ "$(grep -c 'actor-0 start' "$dir/events")" = 1 ] &&
    { echo "actor trouble"; exit "$ACTOR_CODE"; }
for (( i = 0; i < 300; i++ )); do sleep 0.1; done
END
printf '#!/bin/sh\n' >"$work/bin/tdmpc2-replay"
chmod +x "$work/bin/"*

number=0
start() { # VARIABLE=VALUE... : start a run of its own in the background
    number=$((number + 1)); dir=$work/run-$number; rm -f "$work/out"
    env "$@" "$work/bin/tdmpc2" train task=toy steps=50 work_dir="$dir" actors=2 seed=7 >"$work/out" 2>&1 </dev/null &
    pid=$!
}
finish() { # wait for its end, 20 s at most; sets code
    for (( i = 0; i < 400; i++ )); do kill -0 $pid 2>/dev/null || break; sleep 0.05; done
    kill -9 $pid 2>/dev/null
    wait $pid; code=$?
}
await() { # TEXT : until the events hold it, 10 s at most
    for (( i = 0; i < 200; i++ )); do grep -q -- "$1" "$dir/events" 2>/dev/null && return 0; sleep 0.05; done
    return 1
}
said() { grep -q -- "$1" "$work/out"; }
noted() { grep -q -- "$1" "$dir/events"; }
order() { # FIRST SECOND : both happened, in this order
    local a b; a=$(grep -n -- "$1" "$dir/events" | tail -1 | cut -d: -f1); b=$(grep -n -- "$2" "$dir/events" | head -1 | cut -d: -f1)
    [ -n "$a" ] && [ -n "$b" ] && [ "$a" -lt "$b" ]
}
count() { grep -c -- "$1" "$dir/events"; }

# --- asked to end: actors first, then the learner ---
start; await "actor-1 start"
kill -TERM $pid; finish
check "SIGTERM ends with 0" [ $code = 0 ]
check "no checkpoint is promised where there is none" said "^stopped; there is no checkpoint yet: .* in $dir$"
check "both actors end before the learner is told" order "actor-[01] end" "learner term"
check "the learner is given the words and its directory" noted "learner start steps=50 .*seed=7.*work_dir=$dir\|learner start task=toy steps=50 seed=7 actors=2 work_dir=$dir"
check "actors are given address, slot, run and directory" noted "actor-1 start learner=ipc:///tmp/none actor=1 run_id=00000000000000ab work_dir=$dir"
check "the plan is printed" said "starting $dir: toy, 50 agent steps, 2 actors, seed 7"
check "a log per part" [ -f "$dir/learner.log" -a -f "$dir/actor-0.log" -a -f "$dir/actor-1.log" ]

# --- lines of the csv files are shown as the reference's console shows them ---
start; await "actor-1 start"
printf 'step,episode_reward,episode_success,episode_length,episodes,env_step,updates,elapsed_time\n0,12.34,,50,3,0,0,61.5\n' >"$dir/eval.csv"
sleep 0.8
printf '1500,99.94,0.5,50,3,3000,7,3661\n' >>"$dir/eval.csv"
sleep 0.8
kill -INT $pid; finish
check "SIGINT ends with 0" [ $code = 0 ]
check "an evaluation is a line" said "^ eval             I: 0                     R: 12.3                  T: 0:01:01$"
check "one with success too" said "^ eval             I: 1,500                 R: 99.9                  S: 0.5                   T: 1:01:01$"
check "no colours where there is no terminal" [ -z "$(grep -P '\x1b' "$work/out")" ]

# --- a second signal kills ---
start ACTOR_DEAF=1; await "actor-1 start"
kill -INT $pid; sleep 0.5; kill -INT $pid; finish
check "a second signal ends with 130" [ $code = 130 ]
sleep 0.2
check "nothing is left" [ -z "$(pgrep -f "work_dir=$dir")" ]

# --- the learner's end is the run's ---
for want in 0 3; do
    start LEARNER_CODE=$want; finish
    check "the learner's $want is the run's" [ $code = $want ]
    check "the actors are stopped after it" order "learner end" "actor-0 end"
done
start LEARNER_EARLY=2; finish
check "bad input of the learner ends the run with 2" [ $code = 2 ]
check "it is not started again" [ "$(count 'learner start')" = 1 ]
check "its last lines are shown" said "  | a reason to stop"

# --- deaths ---
start LEARNER_KILLED=1; await "learner start.*" && sleep 2.5; kill -TERM $pid; finish
check "a killed learner is started again" [ "$(count 'learner start')" = 2 ]
check "and its actors stay" [ "$(count 'actor-0 start')" = 1 ]
check "the death is said" said "learner: killed by signal 9"
start LEARNER_SAYS='tdmpc2-learner: the port is in use' LEARNER_EARLY=2; finish
check "a reason becomes one sentence" said "^tdmpc2 train: the port is in use (more in $dir/learner.log)$"
check "without the last lines" [ -z "$(grep '  |' "$work/out")" ]
start LEARNER_EARLY=1; finish
check "one that keeps dying is given up with 1" [ $code = 1 ]
check "after five times" [ "$(count 'learner start')" = 5 ]
start ACTOR_CODE=1; await "actor-1 start"; sleep 1.2; kill -TERM $pid; finish
check "a dead actor is started again" [ "$(count 'actor-0 start')" = 2 ]
check "its last lines are shown" said "  | actor trouble"
start ACTOR_CODE=4; await "actor-1 start"; sleep 1.2; kill -TERM $pid; finish
check "a fenced actor is not" [ "$(count 'actor-0 start')" = 1 ]
check "and the run goes on" [ $code = 0 ]
start ACTOR_CODE=2; finish
check "an actor's bad input ends the run with 2" [ $code = 2 ]

# --- nothing is started on bad input ---
for words in "stepz=5" "steps=0" "task=walker-wlk" "obs_shape=3" "num_elites=9999" "bind=tcp://1.2.3.4:5" \
             "config=$work/none.yaml" "lockstep=true actors=3"; do
    "$work/bin/tdmpc2" train work_dir="$work/never" $words >"$work/out" 2>&1; code=$?
    check "$words: exit 2" [ $code = 2 ]
    check "$words: one sentence" [ "$(wc -l <"$work/out")" = 1 ]
done
check "and nothing is made" [ ! -e "$work/never" ]
rm "$work/bin/tdmpc2-replay"
"$work/bin/tdmpc2" train work_dir="$work/never" task=toy >"$work/out" 2>&1; code=$?
check "a missing program: exit 2" [ $code = 2 ]
check "a missing program is named" said "tdmpc2-replay is missing"

totals
