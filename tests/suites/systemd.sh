#!/usr/bin/env bash
# The units under a real systemd: a minimal Debian with the package boots in systemd-nspawn; learner and actor start in
# order, confine themselves, are restarted when killed and when they hang, write a checkpoint when stopped.
#   tests/suites/systemd.sh FILE.deb        needs root, mmdebstrap, systemd-container; downloads a minimal Debian
set -uo pipefail
cd "$(dirname "$0")/../.."
deb=$(realpath "$1")
[ "$(id -u)" = 0 ] || { echo "make test-systemd needs root, to boot a root of its own" >&2; exit 2; }
work=$(mktemp -d) good=0 bad=0 nspawn='' first=''
root=$work/root
leave() {
    [ -n "$nspawn" ] && { kill -TERM "$nspawn" 2>/dev/null; wait "$nspawn" 2>/dev/null; }
    rm -rf --one-file-system "$work"
}
trap leave EXIT

# expect WHAT TEXT COMMAND...: inside, within 30 s
expect() {
    local what=$1 text=$2 out; shift 2
    for _ in $(seq 60); do
        out=$(nsenter -t "$first" -a "$@" 2>&1 </dev/null)
        [[ $out == *"$text"* ]] && { good=$((good + 1)); echo "ok    $what"; return; }
        sleep 0.5
    done
    bad=$((bad + 1)); echo "FAIL  $what: no \"$text\" in:"; tail -n 20 <<<"$out" | cut -c -250 | sed 's/^/  | /'
}
inside() { nsenter -t "$first" -a "$@" </dev/null; }
value() { inside systemctl show -p "$1" --value "$2"; }

mmdebstrap --quiet --variant=minbase --include=systemd,systemd-sysv,dbus,procps --customize-hook="copy-in $deb /tmp" \
    --customize-hook='chroot "$1" apt-get -qq update && DEBIAN_FRONTEND=noninteractive chroot "$1" apt-get -qq -y -o APT::Sandbox::User=root install --no-install-recommends "/tmp/'"${deb##*/}"'"' \
    bookworm "$root" >"$work/log" 2>&1 || { tail -n 20 "$work/log"; exit 1; }
install -D -m 644 deploy/systemd/actor.yaml "$root/etc/tdmpc2/actor.yaml"
printf '%s\n' 'task: toy' 'steps: 1000000' 'work_dir: /var/lib/tdmpc2/run' 'eval_first: false' 'enc_dim: 16' 'mlp_dim: 16' 'latent_dim: 16' \
    'num_q: 2' 'num_bins: 11' 'num_samples: 16' 'num_elites: 4' 'num_pi_trajs: 4' 'iterations: 2' > "$root/etc/tdmpc2/learner.yaml"
mkdir -p "$root/etc/systemd/system/tdmpc2-learner.service.d"
printf '[Service]\nWatchdogSec=8\n' > "$root/etc/systemd/system/tdmpc2-learner.service.d/quick.conf"
chroot "$root" systemctl -q enable tdmpc2-learner tdmpc2-actor@0 tdmpc2-actor@1 2>/dev/null
# Debian 12's nspawn does not let Landlock through by itself
systemd-nspawn -q -D "$root" --register=no --keep-unit --boot \
    --system-call-filter='landlock_create_ruleset landlock_add_rule landlock_restrict_self' >"$work/boot" 2>&1 </dev/null &
nspawn=$!
for _ in $(seq 40); do first=$(pgrep -P "$nspawn" | head -n 1); [ -n "$first" ] && [ "$(cat "/proc/$first/comm")" = systemd ] && break; sleep 0.25; done
[ -n "$first" ] || { echo 'it does not boot:'; tail -n 20 "$work/boot"; exit 1; }

expect 'the learner is ready' active systemctl is-active tdmpc2-learner
for actor in 0 1; do expect "actor $actor came after it and is ready" active systemctl is-active "tdmpc2-actor@$actor"; done
expect 'its status says what it does' 'agent steps' systemctl show -p StatusText --value tdmpc2-learner
expect 'it trains' ', 2 actors' systemctl show -p StatusText --value tdmpc2-learner
expect 'its user' tdmpc2 systemctl show -p User --value tdmpc2-learner
for unit in tdmpc2-learner tdmpc2-actor@0; do
    expect "$unit has landlock and seccomp, too" 'files=landlock-' journalctl --no-pager -b -u "$unit" --grep 'msg="sandbox"'
done
expect 'stats' learner setpriv --reuid tdmpc2 --regid tdmpc2 --clear-groups env TDMPC2_RUNTIME_DIR=/run/tdmpc2 tdmpc2 stats /var/lib/tdmpc2/run
expect 'a shard without options is left alone' inactive bash -c 'systemctl start tdmpc2-shard; systemctl is-active tdmpc2-shard'

old=$(value MainPID tdmpc2-learner)
inside kill -KILL "$old"
expect 'killed, it is started again' 1 systemctl show -p NRestarts --value tdmpc2-learner
expect 'and ready' active systemctl is-active tdmpc2-learner
old=$(value MainPID tdmpc2-learner)
inside kill -STOP "$old"
expect 'hanging, it is ended by the watchdog' 'Watchdog timeout' journalctl --no-pager -b -u tdmpc2-learner --grep Watchdog
expect 'and started again' 2 systemctl show -p NRestarts --value tdmpc2-learner
expect 'and ready' active systemctl is-active tdmpc2-learner
expect 'its actors found it again' ', 2 actors' systemctl show -p StatusText --value tdmpc2-learner
inside systemctl stop tdmpc2-learner
expect 'stopped, it has written a checkpoint' 'checkpoint written' journalctl --no-pager -b -u tdmpc2-learner --grep 'checkpoint written'
expect 'and ended well' success systemctl show -p Result --value tdmpc2-learner

echo "$good passed, $bad failed"
[ "$bad" -eq 0 ]
