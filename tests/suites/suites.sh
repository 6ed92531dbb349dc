# Every suite of Python environments for real: checked, stepped, refused where it must be, briefly trained.
#   make test-suites            (ONLY=gym for one suite)
# Assets that only the user may download (pick-ycb, turn-faucet) are skipped with their reason.
set -uo pipefail
tool=$PWD/$TD_BUILD/bin/tdmpc2
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
export TDMPC2_ENV_TIMEOUT=120
unset VIRTUAL_ENV TDMPC2_PYTHON
passed=0 failed=0 skipped=0
tiny=(enc_dim=32 mlp_dim=32 latent_dim=32 num_samples=32 num_elites=8 num_pi_trajs=4 batch_size=64 num_q=2
      eval_episodes=1 eval_first=false actors=1 iterations=2)

good() { passed=$((passed + 1)); printf 'ok    %s\n' "$*"; }
bad() { failed=$((failed + 1)); printf 'FAIL  %s\n' "$*"; }

# check TASK TEXT: env check passes, with TEXT in what it prints
check() {
    local out rc
    out=$(timeout -k 5 300 "$tool" env check "$1" 2>/dev/null); rc=$?
    if [ $rc -eq 0 ] && [[ $out == *"$2"* ]]; then
        good "check $1: $(grep -o '[0-9.]* agent steps per second' <<<"$out")$(grep -o 'earn .*' <<<"$out" | sed 's/^/, random episodes /')"
    else
        bad "check $1: exit $rc"; sed 's/^/      | /' <<<"$out"
    fi
}

# refuse CODE TEXT TASK
refuse() {
    local out rc
    out=$(timeout -k 5 120 "$tool" env check "$3" 2>&1); rc=$?
    if [ $rc -eq "$1" ] && [[ $out == *"$2"* ]]; then good "refused $3"; else bad "$3: exit $rc: $out"; fi
}

# train TASK STEPS WORDS...: a whole run, the learner with its shard, an actor, a last evaluation
train() {
    local task=$1 steps=$2 out rc start=$SECONDS; shift 2
    out=$(cd "$work" && timeout -k 10 900 "$tool" train task="$task" steps="$steps" "${tiny[@]}" "$@" 2>&1); rc=$?
    if [ $rc -eq 0 ] && [[ $out == *'last evaluation'* ]]; then
        good "trained $task for $steps steps in $((SECONDS - start)) s; $(grep -o 'last evaluation.*' <<<"$out" | tail -1)"
    else
        bad "training $task: exit $rc"; tail -n 15 <<<"$out" | sed 's/^/      | /'
    fi
}

wanted() { [ -z "${ONLY:-}" ] || [ "$ONLY" = "$1" ]; }

if wanted gym; then
    check gym:Pendulum-v1 'obs [3] float32, action [1] in [-1, 1], repeat 1, limit 200'
    check mujoco-walker 'obs [17] float32, action [6] in [-1, 1], repeat 1, limit 1000'
    check mujoco-halfcheetah 'obs [17] float32, action [6]'
    check bipedal-walker 'limit 1600'
    check lunarlander-continuous 'obs [8] float32, action [2] in [-1, 1], repeat 1, limit 500'
    refuse 2 'continuous actions' gym:CartPole-v1
    refuse 2 'cannot make' gym:NoSuchThing-v0
    for mode in Plain Disabled NextStep SameStep; do
        TDMPC2_PYTHON=third_party/venv-gym/bin/python check "python:tests/suites/vector.py:$mode" 'two runs of one seed agree'
    done
    TDMPC2_PYTHON=third_party/venv-gym/bin/python check python:tests/suites/vector.py:Dictionary 'obs [5] float32'
    train gym:Pendulum-v1 1500 seed_steps=1000 eval_freq=1000
fi
if wanted metaworld; then
    for task in $("$tool" env list | grep -o '^mw-[a-z-]*'); do
        check "$task" 'obs [39] float32, action [4] in [-1, 1], repeat 2, limit 100'
    done
    train mw-reach 700 seed_steps=500 eval_freq=600
fi
if wanted myosuite; then
    for task in $("$tool" env list | grep -o '^myo-[a-z-]*'); do
        check "$task" 'action [39] in [-1, 1], repeat 1, limit 100'
    done
    train myo-reach 700 seed_steps=500 eval_freq=600
fi
if wanted maniskill; then
    check lift-cube 'obs [42] float32, action [4] in [-1, 1], repeat 2, limit 100'
    check pick-cube 'obs [51] float32, action [4]'
    check stack-cube 'obs [55] float32, action [4]'
    for task in pick-ycb turn-faucet; do
        out=$(timeout -k 5 120 "$tool" env check $task 2>&1)
        if [[ $out == *'mani_skill2.utils.download_asset'* ]]; then
            skipped=$((skipped + 1)); printf 'skip  %s\n' "$(tail -1 <<<"$out")"
        else
            check $task 'action [7]'
        fi
    done
    train lift-cube 700 seed_steps=500 eval_freq=600 episodic=true
fi

echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ]
