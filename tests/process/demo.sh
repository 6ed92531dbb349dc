#!/usr/bin/env bash
# A whole run on the toy task through the user's commands: demo, curve, checkpoint, eval, extend, stop.
set -u
root=$PWD; build=${TD_BUILD:-build/release}; case $build in /*) ;; *) build=$root/$build ;; esac
tdmpc2=$build/bin/tdmpc2
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
out=$work/out
. "$root/tests/support/checks.sh"
said() { grep -q -- "$1" out; }

small="enc_dim=32 mlp_dim=32 latent_dim=16 num_samples=32 num_elites=8 num_pi_trajs=4 batch_size=16 horizon=2"
toy="task=toy:20 steps=300 seed_steps=100 eval_freq=100 eval_episodes=2 $small"

# shellcheck disable=SC2086
timeout 120 "$root/deploy/demo" "$build/bin" $toy >out 2>&1; code=$?
run=logs/toy:20/1/demo-1
check "the demo ends with 0" [ $code = 0 ]
check "its run is a fresh one" [ -d $run ]
check "it says that it is finished" said "$run is finished"
check "episodes are lines" said "^ train  *E: "
check "evaluations are lines" said "^ eval  *I: "
check "a curve is drawn" said "agent steps"
check "and a picture" [ "$(head -c 4 $run/curve.png 2>/dev/null | tail -c 3)" = PNG ]
check "the last line compares with the random policy" [ "$(tail -n 1 out | grep -c '^Final return [0-9.-]* (mean of 2 episodes after [0-9]* agent steps), the random policy: [0-9.-]*$')" = 1 ]

"$tdmpc2" checkpoint show $run >out 2>&1; code=$?
check "its checkpoints are listed" [ $code = 0 ]
check "the final one too" said "^final  *final"
"$tdmpc2" checkpoint show $run/checkpoints/final --options >out 2>&1; code=$?
check "a checkpoint is shown" [ $code = 0 ]
check "with its hashes" said "parameters.safetensors: [0-9]* bytes, hash fits"
check "and options" said "  num_samples=32"
timeout 60 "$tdmpc2" eval checkpoint=$run eval_episodes=2 >out 2>&1; code=$?
check "it can be evaluated" [ $code = 0 ]
check "from its final checkpoint" said "toy:20, seed 1: $run/checkpoints/final"
require "a finished run"
timeout 60 "$tdmpc2" train task=toy:20 exp_name=demo-1 >out 2>&1; code=$?
check "a finished run says so" [ $code = 0 -a "$(grep -c 'is finished' out)" = 1 ]
timeout 60 "$tdmpc2" train task=toy:20 exp_name=demo-1 lr=1 >out 2>&1; code=$?
check "what is fixed is refused" [ $code = 2 ]
check "with both values" said "lr=0.0003, which cannot become 1"
timeout 60 "$tdmpc2" stop $run >out 2>&1; code=$?
check "there is nothing to stop" [ $code = 0 -a "$(grep -c 'nothing is running' out)" = 1 ]

# --- extend it, then stop it from outside ---
"$tdmpc2" train task=toy:20 exp_name=demo-1 steps=100000 >train.out 2>&1 </dev/null &
pid=$!
for (( i = 0; i < 100; i++ )); do [ -f $run/run/learner-0.addr ] && break; sleep 0.1; done
sleep 1
timeout 60 "$tdmpc2" stop $run >out 2>&1; code=$?
check "stop ends with 0" [ $code = 0 ]
check "the learner answers" said "the learner ends the run: .* else it writes one"
for (( i = 0; i < 600; i++ )); do kill -0 $pid 2>/dev/null || break; sleep 0.05; done
kill -9 $pid 2>/dev/null
wait $pid; code=$?
cp train.out out
check "train ends with 0 then" [ $code = 0 ]
check "it said what it restored" said "restored  batch_size=16"
check "and what it changed" said "changed   steps=100000 (was 300)"
check "and how to go on" said "the same command goes on"
check "no part is left" [ -z "$(pgrep -f "$work")" ]

totals
