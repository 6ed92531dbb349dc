#!/usr/bin/env bash
# What the real programs say to bad input: one sentence with a name in it, exit 2, and no run directory
# begun. Wrong protocol versions, runs and rows on the wire are in test_hostile.c, locked directories and
# divergence in test_refused.c.
set -u
bin=${TD_BUILD:-build/release}/bin
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
tiny="task=toy enc_dim=16 mlp_dim=16 latent_dim=16 num_samples=16 num_elites=4 num_pi_trajs=4 batch_size=16 num_q=2 eval_episodes=1"
passed=0 failed=0

# refused NAME TEXT COMMAND...: exit 2, one line that holds TEXT, nothing made
refused() {
    local name=$1 text=$2 out code; shift 2
    out=$(timeout 60 "$@" 2>&1 </dev/null); code=$?
    if [ $code = 2 ] && [ "$(wc -l <<<"$out")" = 1 ] && [[ $out == *"$text"* ]] && [ ! -e "$work/new" ]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1)); echo "$name: exit $code, printed: $out"; ls "$work/new" 2>/dev/null; rm -rf "$work/new"
    fi
}

# a short run, whose replay directory and checkpoints are there to be misused
"$bin/tdmpc2" train $tiny steps=400 seed_steps=200 work_dir="$work/run" >"$work/out" 2>&1 ||
    { echo "the first run failed:"; cat "$work/out"; echo "[  FAILED  ] 1 test(s)."; exit 1; }
grep -q "^replay in $work/run/replay: 4[0-9][0-9] rows need [0-9.]* kB, [0-9.]* [MG]B are free$" "$work/out" &&
    passed=$((passed + 1)) || { failed=$((failed + 1)); echo "train does not say what replay needs:"; cat "$work/out"; }
chmod -R go+rX "$work"
touch "$work/file"; mkdir "$work/empty" "$work/other"

for program in "tdmpc2 train" tdmpc2-learner; do
    start="$bin/$program $tiny work_dir=$work/new"
    refused "$program: unknown key" "'seed_stepz'; the nearest is 'seed_steps'" $start seed_stepz=5
    refused "$program: out of range" "steps=0 is out of range: it may be 1 to" $start steps=0
    refused "$program: not a number" "steps" $start steps=many
    refused "$program: unknown task" "did you mean walker-walk?" $start task=walker-wlk
    refused "$program: a file as replay_dir" "$work/file is a file" $start replay_dir="$work/file"
    refused "$program: a file above replay_dir" "$work/file is a file" $start replay_dir="$work/file/replay"
    refused "$program: a replay_dir that cannot be made" "cannot write into /proc" $start replay_dir=/proc/replay
    refused "$program: a foreign replay_dir" "belongs to run" $start replay_dir="$work/run/replay"
    refused "$program: a work_dir that cannot be made" "cannot write into /proc" $start work_dir=/proc/run
    refused "$program: too small a disk_limit" "lower buffer_size" $start disk_limit=0.001
    refused "$program: too big a buffer" "GB free" $start buffer_size=1000000000 batch_size=8 steps=1000000000 \
        task=cheetah-run checkpoint_steps=1000000000 keep_checkpoints=1000
    refused "$program: sockets where others may look" "mode 0700" env TDMPC2_RUNTIME_DIR="$work/other" $start
    refused "$program: no place for sockets" "cannot make the folder /proc/none" env TDMPC2_RUNTIME_DIR=/proc/none $start
    refused "$program: an address of nobody" "no such address" $start bind=tcp://192.0.2.1:5 insecure=true advertise=192.0.2.1
    refused "$program: beyond loopback" "insecure=true" $start bind=tcp://0.0.0.0:5555
done
refused "several tasks in frames" "obs=rgb: several tasks are learned together from states only" \
    "$bin/tdmpc2" train obs=rgb tasks=walker-walk,cheetah-run work_dir="$work/new"
refused "missing set-up" "run \`make setup\`" env TDMPC2_ASSETS="$work/empty" "$bin/tdmpc2" train task=walker-walk work_dir="$work/new"

# lock-step without the rows that it has used: refused before anything is made or said
lock="$tiny lockstep=true steps=400 seed_steps=200 checkpoint_steps=300 work_dir=$work/lock"
"$bin/tdmpc2" train $lock >"$work/out" 2>&1 || { failed=$((failed + 1)); echo "the lock-step run failed:"; tail -5 "$work/out"; }
rm -r "$work/lock/replay"
out=$(timeout 60 "$bin/tdmpc2" train ${lock/steps=400/steps=800} 2>&1); code=$?
[ $code = 2 ] && [[ $out == *"rows in $work/lock/replay are gone"* ]] && [[ $out != *"exact "* ]] && passed=$((passed + 1)) ||
    { failed=$((failed + 1)); echo "lock-step with its rows gone: exit $code, printed: $out"; }
[ ! -e "$work/lock/replay" ] && passed=$((passed + 1)) || { failed=$((failed + 1)); echo "it began an empty replay"; }

# checkpoints: missing, no checkpoint, damaged
eval="$bin/tdmpc2 eval $tiny"
refused "no checkpoint" "no checkpoint at $work/none" $eval checkpoint="$work/none"
refused "not a checkpoint" "no checkpoint in $work/empty" $eval checkpoint="$work/empty"
cp -r "$work/run/checkpoints/final" "$work/damaged"
printf 'x' | dd of="$work/damaged/parameters.safetensors" bs=1 seek=3000 conv=notrunc status=none
refused "a damaged checkpoint" "parameters.safetensors is damaged" $eval checkpoint="$work/damaged"
refused "a damaged checkpoint shown" "parameters.safetensors is damaged" "$bin/tdmpc2" checkpoint show "$work/damaged"
printf 'x' | dd of="$work/damaged/manifest.json" bs=1 seek=20 conv=notrunc status=none
refused "a damaged manifest" "does not have the hash" $eval checkpoint="$work/damaged"
head -c 100 "$work/run/checkpoints/final/parameters.safetensors" >"$work/cut.safetensors"
refused "a cut file" "cut.safetensors" $eval checkpoint="$work/cut.safetensors"

# what train would leave unread, names that cannot be, values left out
start="$bin/tdmpc2 train $tiny work_dir=$work/new"
refused "train checkpoint=" "no checkpoint at" $start checkpoint=nope
refused "train learner=" "tdmpc2-actor learner=ADDRESS" $start learner=tcp://127.0.0.1:9
refused "train role=" "belongs to tdmpc2-actor" $start role=evaluator
refused "too long a name" "File name too long" "$bin/tdmpc2" train $tiny work_dir="$work/$(printf 'a%.0s' {1..300})"
printf 'steps: 5\ntask:\n' >"$work/empty.yaml"
refused "a task left out" "empty.yaml:2: task is empty" "$bin/tdmpc2" train config="$work/empty.yaml" work_dir="$work/new"

# what was meant
refused "a hidden task" "did you mean toy?" "$bin/tdmpc2" train task=toyy work_dir="$work/new"
refused "a command" "did you mean train?" "$bin/tdmpc2" tran
refused "a flag of bench" "the nearest is '--json'" "$bin/tdmpc2" bench peak --jsn
refused "a flag of replay" "the nearest is '--json'" "$bin/tdmpc2" replay info "$work/run" --jsn
refused "too many threads" "threads=257 is out of range: it may be 0 to 256" $start threads=257
refused "a resume that is refused" "cannot become 9" "$bin/tdmpc2" train $tiny work_dir="$work/run" steps=500 seed=9
refused "a directory of no files" "no *.safetensors in $work/empty" "$bin/tdmpc2" golden "$work/empty"
refused "a directory of no recordings" "no *.safetensors in $work/empty" "$bin/tdmpc2" env replay "$work/empty"
cp -r "$work/run" "$work/nameless"; rm "$work/nameless/run.json"
refused "a run without its name" "run.json is missing" "$bin/tdmpc2" train $tiny work_dir="$work/nameless" steps=500
mkdir "$work/memory"
out=$(timeout 60 "$bin/tdmpc2" train task=toy model_size=1 num_q=64 batch_size=65536 horizon=100 steps=300 buffer_size=100 \
    work_dir="$work/memory" 2>&1 </dev/null); code=$?
[ $code = 2 ] && [[ $out == *"GB of memory,"* ]] && [[ $out != *"newest checkpoint"* ]] && passed=$((passed + 1)) ||
    { failed=$((failed + 1)); echo "too large a model: exit $code, printed: $out"; }

# what was lost is said
cp -r "$work/run" "$work/lossy"; truncate -s 100 "$work/lossy/checkpoints/final/optimizer.safetensors"; rm -rf "$work/lossy/replay"
out=$(timeout 60 "$bin/tdmpc2" train $tiny steps=450 seed_steps=200 work_dir="$work/lossy" 2>&1 </dev/null)
[[ $out == *"note: checkpoint final is passed over: "*optimizer* ]] && passed=$((passed + 1)) ||
    { failed=$((failed + 1)); echo "a damaged checkpoint is not said: $out"; }
cp -r "$work/run" "$work/rowless"; rm -rf "$work/rowless/replay"
out=$(timeout 60 "$bin/tdmpc2" train $tiny steps=450 seed_steps=200 work_dir="$work/rowless" 2>&1 </dev/null)
[[ $out == *"note: the rows in $work/rowless/replay are gone"* ]] && passed=$((passed + 1)) ||
    { failed=$((failed + 1)); echo "lost rows are not said: $out"; }

# results that cannot be written, stores that cannot be read
counted() { # NAME CODE TEXT COMMAND...: its exit code, and a text in what it prints
    local name=$1 want=$2 text=$3 out code; shift 3
    out=$(timeout 60 "$@" 2>&1 </dev/null); code=$?
    if [ $code = "$want" ] && [[ $out == *"$text"* ]]; then passed=$((passed + 1)); else
        failed=$((failed + 1)); echo "$name: exit $code, printed: $out"; fi
}
counted "export into nowhere" 2 "/nonexist" "$bin/tdmpc2" replay export "$work/run" /nonexist/x
counted "a picture into nowhere" 2 "cannot write /nonexist/x.png" "$bin/tdmpc2" curve "$work/run" png=/nonexist/x.png
counted "a picture of the run into its folder" 0 "curve.png" "$bin/tdmpc2" curve "$work/run"
for words in "env list" "help" "stats --help" "train --markdown" "replay info $work/run"; do
    counted "$words into a full disk" 1 "cannot write to standard output" sh -c "exec $bin/tdmpc2 $words >/dev/full"
done
if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null && setpriv --reuid 65534 --clear-groups test -x "$bin/tdmpc2"; then
    other="setpriv --reuid 65534 --regid 65534 --clear-groups"
    mkdir -m 777 "$work/others"
    counted "another user's store: info" 0 "streams" $other "$bin/tdmpc2" replay info "$work/run"
    counted "another user's store: verify" 0 "every hash holds" $other "$bin/tdmpc2" replay verify "$work/run"
    counted "another user's store: export" 0 "; 0 damaged" $other "$bin/tdmpc2" replay export "$work/run" "$work/others/x"
    counted "another user's run drawn" 2 "curve.png" $other "$bin/tdmpc2" curve "$work/run"
    chmod 000 "$work/run/replay/data.mdb"
    for part in info verify; do
        counted "an unreadable store: $part" 2 "data.mdb: Permission denied" $other "$bin/tdmpc2" replay $part "$work/run"
    done
    chmod 644 "$work/run/replay/data.mdb"
fi
cp -r "$work/run" "$work/torn"
dd if=/dev/zero of="$work/torn/replay/data.mdb" bs=1 count=8192 conv=notrunc status=none
for part in info verify; do counted "a destroyed store: $part" 2 "salvage" "$bin/tdmpc2" replay $part "$work/torn"; done

# parts by themselves
refused "a foreign store by hand" "belongs to run" "$bin/tdmpc2-replay" learner=tcp://127.0.0.1:9 bind=tcp://127.0.0.1:* \
    run_id=abcd replay_dir="$work/run/replay"
refused "a file for a store by hand" "$work/file" "$bin/tdmpc2-replay" learner=tcp://127.0.0.1:9 bind=tcp://127.0.0.1:* \
    run_id=abcd replay_dir="$work/file"
refused "no learner" "learner=ADDRESS" "$bin/tdmpc2-actor"
refused "a bad address" "tcp://HOST:PORT" "$bin/tdmpc2-actor" learner=somewhere
refused "an actor's unknown key" "the nearest is 'learner'" "$bin/tdmpc2-actor" lerner=tcp://127.0.0.1:9

[ $passed -gt 0 ] && echo "[  PASSED  ] $passed test(s)."
[ $failed -gt 0 ] && echo "[  FAILED  ] $failed test(s)."
exit $((failed > 0))
