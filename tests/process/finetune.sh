#!/usr/bin/env bash
# A run that begins with another run's model: through the user's commands, and killed before its first checkpoint.
set -u
root=$PWD; build=${TD_BUILD:-build/release}; case $build in /*) ;; *) build=$root/$build ;; esac
tdmpc2=$build/bin/tdmpc2
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
out=$work/out
. "$root/tests/support/checks.sh"
said() { grep -q -- "$1" "${2:-out}"; }

small="enc_dim=32 mlp_dim=32 latent_dim=16 num_samples=32 num_elites=8 num_pi_trajs=4 batch_size=16 horizon=2"
quick="steps=200 seed_steps=100 eval_freq=1000000 eval_episodes=1 evaluator=off actors=1"

# shellcheck disable=SC2086
timeout 120 "$tdmpc2" train task=toy:20 $small $quick work_dir=first >out 2>&1; code=$?
check "the first run ends with 0" [ $code = 0 ]
# shellcheck disable=SC2086
timeout 120 "$tdmpc2" train task=toy:25 $quick checkpoint=first work_dir=second >out 2>&1; code=$?
check "a run that begins with it ends with 0" [ $code = 0 ]
check "it says with what it begins" said "beginning with .*/first/checkpoints/final, its optimiser anew"
check "the learner does as well" said 'msg="*fine-tuning.*first/checkpoints/final' second/learner.log
check "sizes are the checkpoint's" said "^mlp_dim: 32" second/config.yaml
check "its origin is kept as a full path" said "^checkpoint: .*$work/first" second/config.yaml
# shellcheck disable=SC2086
timeout 60 "$tdmpc2" train task=toy:25 $quick checkpoint=first mlp_dim=64 work_dir=third >out 2>&1; code=$?
check "other sizes are refused" [ $code = 2 -a ! -e third ]
check "with both values" said "trained with mlp_dim=32, this run has mlp_dim=64"

# killed before it has a checkpoint of its own, it begins with the same again, without being told
# shellcheck disable=SC2086
timeout -s KILL 120 "$tdmpc2" train task=toy:25 steps=100000 seed_steps=50000 evaluator=off actors=1 checkpoint=first work_dir=fourth >out 2>&1 &
pid=$!
for (( i = 0; i < 200; i++ )); do said "fine-tuning" fourth/learner.log 2>/dev/null && break; sleep 0.1; done
pkill -KILL -P $pid tdmpc2 2>/dev/null; kill -KILL $pid 2>/dev/null; wait $pid 2>/dev/null
for (( i = 0; i < 100; i++ )); do [ "$("$tdmpc2" stop fourth 2>/dev/null | grep -c 'nothing is running')" = 1 ] && break; sleep 0.1; done
rm -rf fourth/checkpoints
timeout 60 "$tdmpc2" train work_dir=fourth task=toy:25 steps=200 >out 2>&1; code=$?
check "it goes on" [ $code = 0 ]
check "with what it began with" [ "$(grep -c 'fine-tuning.*first/checkpoints/final' fourth/learner.log)" = 2 ]

totals
