# A C environment loaded at run time: the example is compiled, checked and trained; bad ones are refused.
set -uo pipefail
tool=$PWD/$TD_BUILD/bin/tdmpc2
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
passed=0 failed=0
compile() { cc -O2 -Wall -Werror -fPIC -shared -I common/env "${@:3}" -o "$work/$2" "$1" -lm; }

# expect NAME EXIT_CODE TEXT COMMAND...: TEXT must be in what it prints
expect() {
    local name=$1 code=$2 text=$3 out rc; shift 3
    out=$("$@" 2>&1); rc=$?
    if [ $rc -eq "$code" ] && [[ $out == *"$text"* ]]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1)); echo "$name: exit $rc (expected $code), printed: $out"
    fi
}

example=tools/examples/my_env.c
compile $example my_env.so || exit 1
sed 's/.abi = TDMPC2_ENV_ABI/.abi = 99/' $example > "$work/abi.c" && compile "$work/abi.c" abi.so
sed 's/.obs_dim = 3/.obs_dim = 0/' $example > "$work/dim.c" && compile "$work/dim.c" dim.so
sed 's/result->reward = 1 /result->reward = NAN /' $example > "$work/nan.c" && compile "$work/nan.c" nan.so
# at 0.3, what is in the place of has_success happens
bad() { sed "s/result->has_success = 1;/if (cart->place > 0.3) { $2; }/; 1i #include <fcntl.h>\n#include <stdio.h>\n#include <stdlib.h>\n#include <unistd.h>" $example > "$work/$1.c" && compile "$work/$1.c" "$1.so"; }
hang='char name[32]; snprintf(name, sizeof(name), "hung.%d", (int)getpid()); close(creat(name, 0600)); for (;;) pause()'
bad exit 'exit(0)'; bad gone '_exit(0)'; bad abort 'abort()'; bad hang "$hang"; bad crash '__builtin_trap()'
sed "s/if (cart != NULL)/if (cart != NULL) { $hang; }\n&/; 1i #include <fcntl.h>\n#include <stdio.h>\n#include <unistd.h>" $example > "$work/stuck.c" && compile "$work/stuck.c" stuck.so
sed 's/result->has_success = 1;/result->terminated = away < 0.1;/' $example > "$work/ends.c" && compile "$work/ends.c" ends.so
echo 'int nothing;' > "$work/empty.c" && compile "$work/empty.c" empty.so
echo text > "$work/text.so"
tiny=(enc_dim=16 mlp_dim=16 latent_dim=16 num_samples=32 num_elites=8 num_pi_trajs=4 batch_size=32 num_q=2
      eval_episodes=2 seed_steps=250 eval_freq=600 actors=1)

cd "$work" || exit 1
expect 'check' 0 'ok      saved state' "$tool" env check ./my_env.so
expect 'check without a slash' 0 'obs [3] float32, action [1]' "$tool" env check my_env.so
expect 'another abi' 2 'compile it again' "$tool" env check ./abi.so
expect 'no observation' 2 'obs_dim' "$tool" env check ./dim.so
expect 'NaN' 1 'the reward is nan' "$tool" env check ./nan.so
expect 'no table' 2 'exports no tdmpc2_env' "$tool" env check ./empty.so
expect 'no library' 2 'cannot load' "$tool" env check ./text.so
mkfifo pipe.so
expect 'a pipe' 2 './pipe.so is no file' timeout 5 "$tool" env check ./pipe.so
expect 'no file' 2 'cannot load' "$tool" env check ./none.so
expect 'check as train has it' 0 'ok      saved state' "$tool" env check env=./my_env.so
expect 'check with an option that is none' 2 'only obs= and render=' "$tool" env check ./my_env.so steps=3
expect 'it exits' 1 './exit.so: it ended the process, with exit code 0, in step' "$tool" env check ./exit.so
expect 'it aborts' 1 './abort.so: killed by signal 6 (Aborted) in step' "$tool" env check ./abort.so
expect 'it crashes' 1 './crash.so: killed by signal' "$tool" env check ./crash.so
expect 'the next one is checked' 1 'ok      saved state' "$tool" env check ./crash.so ./my_env.so
expect 'it hangs' 1 './hang.so: step did not come back within 1 s' env TDMPC2_ENV_TIMEOUT=1 "$tool" env check ./hang.so
expect 'it ends though it says it does not' 1 "\`terminates\` is 0" "$tool" env check ./ends.so

# The same while training: the part that it takes along is started again, and its reason told.
bad_run() {
    TDMPC2_ENV_TIMEOUT=1 "$tool" train env=./$1.so work_dir="$work/run-$1" steps=90000 evaluator=off "${tiny[@]}" > "$1.out" 2>&1 &
    for ((left = 800; left > 0; left--)); do grep -q 'starting actor-0 again' "$1.out" && break; sleep 0.05; done
    kill $!; sleep 0.2; kill $! 2>/dev/null; wait $! # asked twice it kills them all
}
for which in exit gone crash hang; do bad_run $which & done
wait
expect 'train: it exits' 0 './exit.so: it called exit' cat exit.out
expect 'train: it is started again' 0 'starting actor-0 again' cat exit.out
expect 'train: it leaves in silence' 0 'actor-0: it called exit, code 0, though nobody asked it to' cat gone.out
expect 'train: it crashes' 0 './crash.so: killed by signal' cat crash.out
expect 'train: it hangs' 0 'step of ./hang.so has taken' cat hang.out
# Where nothing has a loop yet it hangs no longer than it may, and a signal ends it at once, with a sentence.
signalled() { # NAME SIGNAL COMMAND...: what it prints, its exit code, and whether it left within two seconds
    local out=$1.out name=$2 pid at left; shift 2
    "$@" > "$out" 2>&1 & pid=$!
    for ((left = 600; left > 0; left--)); do [ -e hung.$pid ] && break; sleep 0.05; done
    sleep 1.1; at=${EPOCHREALTIME/./}
    kill -$name $pid
    for ((left = 200; left > 0; left--)); do kill -0 $pid 2> /dev/null || break; sleep 0.05; done
    kill -KILL $pid 2> /dev/null; wait $pid; echo "exit $?, in time: $((${EPOCHREALTIME/./} - at < 2000000))" >> "$out"
}
deadline() { TDMPC2_ENV_TIMEOUT=1 timeout -k 1 60 "${@:2}" > "$1.out" 2>&1; echo "exit $?." >> "$1.out"; }
signalled int INT "$tool" eval env=./hang.so --random eval_episodes=1 &
signalled term TERM "$tool" eval env=./stuck.so --random &
signalled early INT "$tool" train env=./stuck.so work_dir="$work/early" "${tiny[@]}" &
deadline late "$tool" eval env=./hang.so --random eval_episodes=1 &
deadline stuck "$tool" train env=./stuck.so work_dir="$work/late" "${tiny[@]}" &
wait
expect 'eval: interrupted' 0 'tdmpc2 eval: interrupted: step of ./hang.so has taken' cat int.out
expect 'eval: interrupted in time' 0 'exit 130, in time: 1' cat int.out
expect 'eval: asked to end' 0 'tdmpc2 eval: asked to end: create of ./stuck.so has taken' cat term.out
expect 'eval: asked to end in time' 0 'exit 130, in time: 1' cat term.out
expect 'train: interrupted before it begins' 0 'tdmpc2 train: interrupted: create of ./stuck.so has taken' cat early.out
expect 'train: interrupted in time' 0 'exit 0, in time: 1' cat early.out
expect 'eval: it hangs' 0 'tdmpc2 eval: step of ./hang.so has taken 1' cat late.out
expect 'eval: the deadline is in the sentence' 0 'it hangs, or TDMPC2_ENV_TIMEOUT must be longer' cat late.out
expect 'eval: it hangs, the code' 0 'exit 1.' cat late.out
expect 'train: it hangs before it begins' 0 'tdmpc2 train: create of ./stuck.so has taken 1' cat stuck.out
expect 'train: it hangs before it begins, the code' 0 'exit 1.' cat stuck.out
expect 'env= and task=' 2 'give one of them' "$tool" train env=./my_env.so task=walker-walk
expect 'train' 0 'last evaluation' timeout -k 5 120 "$tool" train env=./my_env.so steps=1200 "${tiny[@]}"
expect 'its run directory' 0 'task: "./my_env.so"' cat logs/my_env.so/1/default/config.yaml
expect 'train in lock-step' 0 'last evaluation' timeout -k 5 120 "$tool" train env=./my_env.so steps=400 lockstep=true "${tiny[@]}"  exp_name=lock

echo "[  PASSED  ] $passed test(s)."
[ $failed -eq 0 ] || { echo "[  FAILED  ] $failed test(s)."; exit 1; }
