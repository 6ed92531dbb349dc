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
check 'its result is the mean over tasks' grep -Eq 'last evaluation, at step 400: return [-0-9.]+, the mean of 3 tasks with 1 episode, normalised score [-0-9.]+$' "$work/out"
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

# a made-up data set in the layout of mt80, from the command line: its rows, their number against the real one's, training
"$bin/tdmpc2" data synth "$work/made" task=mt80 rows=20200 >"$work/out" 2>&1 &&
    "$bin/tdmpc2" data import "$work/made" >>"$work/out" 2>&1
check 'a made-up set is imported' says '20200 rows of 200 episodes from 4 chunks'
check 'and its size compared with the real one' says 'warning: mt80 has 5450000 episodes, this is 0.00367 % of it'
"$bin/tdmpc2" data import "$work/made" >"$work/out" 2>&1
check 'an import that was done has nothing left to do' says '20200 rows of 200 episodes'
"$bin/tdmpc2" data sample "$work/made" seconds=0.2 --json >"$work/out" 2>&1
check 'it is drawn from' grep -Eq '^\{"episodes":200,"rows":20200,.*"slices_per_s":[1-9][0-9]{3,},"rss_anon_mb":[0-9.]+,' "$work/out"
timeout 60 "$bin/tdmpc2" train task=mt80 data_dir="$work/made" work_dir="$work/offline" "${tiny[@]}" steps=3 evaluator=off >"$work/out" 2>&1
check 'it is trained on' [ $? = 0 ]
exec 3> >(:); sleep 0.05
"$bin/tdmpc2" replay info "$work/made/store" >&3 2>"$work/closed"
exec 3>&-
check 'a reader that went away is no damage' [ ! -s "$work/closed" ]
"$bin/tdmpc2" replay info "$work/made/store" >"$work/info" 2>&1
check 'rows take less than as they are drawn' awk '/^bytes/ {ok = $2 > 1 && $2 < 0.8 * $5} END {exit !ok}' "$work/info"
check 'which tells that most of it is missing' says 'warning: mt80 has 200 episodes of 5450000'
check 'its losses are logged' grep -q '^0,' "$work/offline/train.csv"

totals
