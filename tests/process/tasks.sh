#!/usr/bin/env bash
# Several tasks from the command line: a run of two actors with two environments each, killed and resumed, what it
# leaves behind, what is refused. Prints as cmocka does.
set -u
build=${TD_BUILD:-build/release}
bin=$build/bin
work=$(mktemp -d -p "$([ -w /dev/shm ] && echo /dev/shm || echo "${TMPDIR:-/tmp}")"); trap 'rm -rf "$work"' EXIT
out=$work/out
. tests/support/checks.sh
says() { grep -qF -- "$1" "$work/out"; }
tiny=(enc_dim=16 mlp_dim=16 latent_dim=16 num_q=2 batch_size=16 num_samples=16 num_elites=4 num_pi_trajs=4 iterations=1
      task_dim=4 num_bins=11 eval_episodes=1 eval_freq=200 seed_steps=120)
run=(tasks=toy-copy:20,toy-oppose:10,toy:15 work_dir="$work/run" actors=2 envs=2 steps=400 task_sampling=balanced "${tiny[@]}")

timeout 60 "$bin/tdmpc2" train "${run[@]}" >"$work/out" 2>&1 </dev/null &
pid=$!
for (( i = 0; i < 300; i++ )); do
    [ "$(cat "$work/run/train.csv" 2>/dev/null | wc -l)" -gt 4 ] && break
    kill -0 $pid 2>/dev/null || break
    sleep 0.05
done
learner=$(sed -n 's/.*"pid":\([0-9]*\).*/\1/p' "$work/run/run/learner-0.addr" 2>/dev/null)
[ -n "$learner" ] && kill -9 "$learner" 2>/dev/null # train starts another
wait $pid
check 'a run whose learner was killed ends well' [ $? = 0 ]
check 'the run says that it is finished' says 'is finished: 401 agent steps'
head=$(head -1 "$work/run/eval.csv")
check 'eval.csv begins as the reference' [ "${head:0:20}" = step,episode_reward, ]
check 'eval.csv has the score and every task' [ "${head##*elapsed_time,}" = \
'normalized_score,episode_reward+toy-copy:20,episode_success+toy-copy:20,episode_reward+toy-oppose:10,episode_success+toy-oppose:10,episode_reward+toy:15,episode_success+toy:15' ]
check 'the last line has a score of each' [ "$(tail -1 "$work/run/eval.csv" | awk -F, '{n = 0; for (i = 9; i <= 15; i++) n += $i != ""; print n}')" = 4 ]

"$bin/tdmpc2" replay info "$work/run" >"$work/out" 2>&1
even() { # rows of the three tasks, in the replay, lie within five of the longest episodes
    awk '/^task / {n++; r = $3; if (n == 1 || r < low) low = r; if (n == 1 || r > high) high = r} END {exit !(n == 3 && high - low <= 105)}' "$work/out"
}
check 'every task has its rows' even
check 'tasks are named' says ': toy-oppose:10'
"$bin/tdmpc2" replay verify "$work/run" >"$work/out" 2>&1
check 'what is stored unpadded is whole' [ $? = 0 ]
rows() { "$bin/tdmpc2" replay hash "$1" 2>/dev/null | grep -v replay.episodes; } # of which stream they were is not exported
rows "$work/run" >"$work/hash"
"$bin/tdmpc2" replay export "$work/run" "$work/set.safetensors" >"$work/out" 2>&1 &&
    "$bin/tdmpc2" data import "$work/set.safetensors" "$work/again" >>"$work/out" 2>&1 &&
    rows "$work/again" >"$work/hash2"
check 'it is exported and imported' [ "$(grep -c replay "$work/hash")" = 6 ]
check 'to the bit' cmp "$work/hash" "$work/hash2"

timeout 20 "$bin/tdmpc2" train tasks=toy-copy:20,toy:15 work_dir="$work/run" >"$work/out" 2>&1 </dev/null
check 'another list is bad input' [ $? = 2 ]
check 'it is refused naming both' says 'tasks=toy-copy:20,toy-oppose:10,toy:15, which cannot become toy-copy:20,toy:15'
timeout 20 "$bin/tdmpc2" eval checkpoint="$work/run" tasks=toy-oppose:10,toy:15 eval_episodes=1 >"$work/out" 2>&1
check 'two of three are evaluated' says '2 tasks: mean return '

totals
