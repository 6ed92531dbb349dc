#!/usr/bin/env bash
# The Debian package on a clean root: installed with what it depends on alone, checked, run as its own user, removed.
#   tests/suites/deb.sh FILE.deb        needs root and mmdebstrap; downloads a minimal Debian (SUITE=bookworm)
set -uo pipefail
cd "$(dirname "$0")/../.."
deb=$(realpath "$1") suite=${SUITE:-bookworm}
[ "$(id -u)" = 0 ] || { echo "make test-deb needs root, for a root of its own" >&2; exit 2; }
command -v mmdebstrap >/dev/null || { echo "make test-deb needs mmdebstrap: apt-get install mmdebstrap" >&2; exit 2; }
work=$(mktemp -d) good=0 bad=0
root=$work/root
leave() { umount -q "$root/proc" "$root/dev" 2>/dev/null; rm -rf --one-file-system "$work"; }
trap leave EXIT

# expect WHAT CODE TEXT COMMAND...
expect() {
    local what=$1 code=$2 text=$3 out rc; shift 3
    out=$("$@" 2>&1 </dev/null); rc=$?
    if [ $rc -eq "$code" ] && [[ $out == *"$text"* ]]; then good=$((good + 1)); echo "ok    $what"; else
        bad=$((bad + 1)); echo "FAIL  $what: exit $rc, no \"$text\" in:"; tail -n 30 <<<"$out" | sed 's/^/  | /'
    fi
}
inside() { chroot "$root" "$@"; }
as_user() { chroot --userspec=tdmpc2:tdmpc2 "$root" env -i PATH=/usr/bin:/bin HOME=/ "$@"; }

# apt's own resolver installs the package: nothing that it does not depend on comes along
mkdir -p "$root"
expect 'it installs on a clean root' 0 '' mmdebstrap --quiet --variant=minbase \
    --customize-hook="copy-in $deb /tmp" \
    --customize-hook='chroot "$1" apt-get -qq update && DEBIAN_FRONTEND=noninteractive chroot "$1" apt-get -qq -y -o APT::Sandbox::User=root install --no-install-recommends "/tmp/'"${deb##*/}"'"' \
    "$suite" "$root"
mount -t proc proc "$root/proc" && mount --bind /dev "$root/dev" || exit 1
expect 'its files are whole' 0 '' inside dpkg -V tdmpc2
expect 'no library is lacking' 1 '' bash -c "chroot '$root' ldd /usr/bin/tdmpc2 /usr/bin/tdmpc2-actor /usr/lib/tdmpc2/libmujoco.so.3.1.2 | grep 'not found'"
expect 'no Python came with it' 1 '' inside which python3
expect 'its user' 0 '/var/lib/tdmpc2' inside getent passwd tdmpc2
install -d -m 700 "$root/var/lib/tdmpc2" && inside chown tdmpc2:tdmpc2 /var/lib/tdmpc2
cp tests/golden/trajectories/pendulum-swingup.traj.safetensors tests/golden/trajectories/reacher-three-hard.traj.safetensors "$root/tmp"

expect 'doctor' 0 'ok   mujoco' as_user tdmpc2 doctor replay_dir=/var/lib/tdmpc2
expect 'a model of dm_control' 0 'ok     pendulum-swingup' as_user tdmpc2 env replay /tmp/pendulum-swingup.traj.safetensors
expect 'a model of ours' 0 'ok     reacher-three-hard' as_user tdmpc2 env replay /tmp/reacher-three-hard.traj.safetensors
expect 'sixty steps' 0 '' as_user tdmpc2 train task=toy steps=60 seed_steps=40 eval_episodes=1 actors=2 enc_dim=16 mlp_dim=16 \
    latent_dim=16 num_q=2 num_bins=11 batch_size=8 num_samples=16 num_elites=4 num_pi_trajs=4 iterations=2 work_dir=/var/lib/tdmpc2/run
expect 'their evaluation' 0 '60,' tail -n 1 "$root/var/lib/tdmpc2/run/eval.csv"
expect 'their checkpoint is whole' 0 '' as_user tdmpc2 checkpoint show /var/lib/tdmpc2/run

expect 'it is removed' 0 '' inside dpkg --purge tdmpc2
expect 'nothing of it stays' 0 '' test -z "$(find "$root/usr" "$root/lib" "$root/etc" -path '*tdmpc2*' ! -path '*/mmdebstrap*' -print -quit)"
expect 'but the run does' 0 '60,' tail -n 1 "$root/var/lib/tdmpc2/run/eval.csv"

echo "$good passed, $bad failed"
[ "$bad" -eq 0 ]
