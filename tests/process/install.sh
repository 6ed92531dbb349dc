#!/usr/bin/env bash
# `make install`: what was installed runs by itself, its systemd units are sound, uninstalling leaves nothing.
set -uo pipefail
cd "$(dirname "$0")/../.."
case ${TD_BUILD:-} in *san-*) echo 'installing is tested with the release build'; echo '[  SKIPPED ] 1 test(s).'; exit 0 ;; esac
unset MAKEFLAGS MAKELEVEL MFLAGS TDMPC2_ASSETS
tree=$PWD
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
good=0 bad=0 skipped=0
# expect WHAT CODE TEXT COMMAND...
expect() {
    local what=$1 code=$2 text=$3 out rc; shift 3
    out=$("$@" 2>&1 </dev/null); rc=$?
    if [ $rc -eq "$code" ] && [[ $out == *"$text"* ]]; then good=$((good + 1)); else
        bad=$((bad + 1)); echo "$what: exit $rc, no \"$text\" in:"; sed 's/^/  | /' <<<"$out"
    fi
}
files() { (cd "$1" && find . -type f | LC_ALL=C sort); }

prefix=$work/opt/td
expect 'install' 0 '' make -s install PREFIX="$prefix" UNITS="$prefix/lib/systemd"
touch "$work/before"
expect 'staged' 0 '' make -s install DESTDIR="$work/stage" PREFIX="$prefix" UNITS="$prefix/lib/systemd"
# What root installs leaves nothing of root's among what was built.
expect 'nothing more is built' 1 '' grep . <(find build/man build/release/bin build/release/installed -newer "$work/before" 2>/dev/null)
expect 'the same files' 0 '' diff <(files "$prefix") <(files "$work/stage$prefix")
expect 'nothing leads back here' 1 '' grep -rlF "$tree" "$prefix/lib" "$prefix/share"
for program in "$prefix"/bin/*; do
    expect "${program##*/} finds its libraries beside itself" 1 '' grep -F "$tree/third_party" <(readelf -d "$program")
    name=${program##*/}
    expect 'a man page' 0 ".TH ${name^^} 1" cat "$prefix/share/man/man1/$name.1"
done

# From elsewhere, with nothing of this tree in sight.
cd "$work" || exit 1
tool=$prefix/bin/tdmpc2
expect 'doctor' 0 'ok   mujoco' "$tool" doctor replay_dir="$work"
expect 'replay' 0 'ok     pendulum-swingup' "$tool" env replay "$tree/tests/golden/trajectories/pendulum-swingup.traj.safetensors"
expect 'a model of ours' 0 'ok     reacher-three-hard' "$tool" env replay "$tree/tests/golden/trajectories/reacher-three-hard.traj.safetensors"
expect 'eval' 0 'return' "$tool" eval --random task=pendulum-swingup eval_episodes=1
expect 'the bridge' 0 'saved state' "$tool" env check "python:$tree/tests/support/python/toys.py:Wrapped"
expect 'train' 0 '' "$tool" train task=toy steps=60 seed_steps=40 eval_episodes=1 actors=1 enc_dim=16 mlp_dim=16 latent_dim=16 \
    num_q=2 num_bins=11 batch_size=8 num_samples=16 num_elites=4 num_pi_trajs=4 iterations=2 work_dir="$work/run"
expect 'its result' 0 '60,' tail -n 1 "$work/run/eval.csv"

if command -v systemd-analyze >/dev/null; then
    for unit in "$prefix"/lib/systemd/system/*.service; do
        expect "${unit##*/} has its programs" 0 "ExecStart=$prefix/bin/tdmpc2-" cat "$unit"
        out=$(systemd-analyze verify --man=no --recursive-errors=no "$unit" 2>&1); rc=$?
        if [ $rc -eq 0 ] && [ -z "$out" ]; then good=$((good + 1)); else bad=$((bad + 1)); echo "verify $unit: $rc, $out"; fi
        # tenths: 15 is the 1.5 of `systemd-analyze security`
        expect "${unit##*/} is hardened" 0 'Overall exposure level' systemd-analyze security --no-pager --offline=true --threshold=15 "$unit"
    done
else
    echo 'systemd-analyze is not here: the units are not checked'; skipped=1
fi

cd "$tree" || exit 1
touch "$prefix/bin/others"
expect 'uninstall' 0 '' make -s uninstall PREFIX="$prefix" UNITS="$prefix/lib/systemd"
expect 'nothing but what is not ours' 0 './bin/others' files "$prefix"
[ "$(files "$prefix")" = ./bin/others ] && good=$((good + 1)) || { bad=$((bad + 1)); files "$prefix"; }

echo "[==========] $((good + bad)) test(s) run."
echo "[  PASSED  ] $good test(s)."
[ $skipped -eq 0 ] || echo "[  SKIPPED ] $skipped test(s)."
[ "$bad" -eq 0 ] || { echo "[  FAILED  ] $bad test(s)."; exit 1; }
