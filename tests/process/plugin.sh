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
bad() { sed "s/result->has_success = 1;/if (cart->place > 0.3) $2;/; 1i #include <stdlib.h>\n#include <unistd.h>" $example > "$work/$1.c" && compile "$work/$1.c" "$1.so"; }
bad exit 'exit(0)'; bad gone '_exit(0)'; bad abort 'abort()'; bad hang 'for (;;) pause()'; bad crash '__builtin_trap()'
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
expect 'env= and task=' 2 'give one of them' "$tool" train env=./my_env.so task=walker-walk
expect 'train' 0 'last evaluation' timeout -k 5 120 "$tool" train env=./my_env.so steps=1200 "${tiny[@]}"
expect 'its run directory' 0 'task: "./my_env.so"' cat logs/my_env.so/1/default/config.yaml
expect 'train in lock-step' 0 'last evaluation' timeout -k 5 120 "$tool" train env=./my_env.so steps=400 lockstep=true "${tiny[@]}"  exp_name=lock

echo "[  PASSED  ] $passed test(s)."
[ $failed -eq 0 ] || { echo "[  FAILED  ] $failed test(s)."; exit 1; }
