#!/usr/bin/env bash
# `tdmpc2 launch` and what goes with it, on this machine and over ssh to two loopback addresses with a private sshd.
set -u
bin=${TD_BUILD:-build/release}/bin
case $bin in /*) ;; *) bin=$PWD/$bin ;; esac
work=$(mktemp -d /tmp/tdlaunch.XXXXXX)
passed=0 failed=0 skipped=0 sshd=
leave() {
    for file in "$work"/*.yaml; do "$bin/tdmpc2" stop "$file" >/dev/null 2>&1; done
    [ -n "$sshd" ] && kill "$sshd" 2>/dev/null
    rm -rf "$work"
}
trap leave EXIT
ok() { passed=$((passed + 1)); }
no() { failed=$((failed + 1)); echo "FAILED: $*"; tail -n 5 "$work"/out "$work"/*/learner.log "$work"/*/*/learner.log 2>/dev/null; }
# expect WHAT CODE TEXT COMMAND...: this exit code, and TEXT in what it says
expect() {
    local what=$1 code=$2 text=$3 got; shift 3
    timeout 120 "$@" >"$work/out" 2>&1 </dev/null; got=$?
    if [ $got = "$code" ] && grep -qF -- "$text" "$work/out"; then ok; else no "$what: exit $got"; cat "$work/out"; fi
}
# metric DIR ROLE NAME
metric() { "$bin/tdmpc2" stats "$1" --json | python3 -c 'import json, sys
print(int(sum(p["metrics"].get(sys.argv[2], 0) for p in json.load(sys.stdin)["parts"] if p["role"] == sys.argv[1] and p["reachable"])))' "$2" "$3"; }
none_left() { # DIR: nobody has it among his words
    for _ in $(seq 50); do pgrep -f "$1" >/dev/null || return 0; sleep 0.1; done
    return 1
}
toy="task: toy, model_size: 1, batch_size: 16, mpc: false, seed_steps: 200, steps: 100000000, eval_freq: 100000000, eval_episodes: 1, heartbeat: 0.5"

# --- bad input ---
printf 'name: a\noptions: {task: toy}\nactrs: {}\n' >"$work/bad.yaml"
expect 'an unknown key' 2 "bad.yaml, line 3: there is no key 'actrs'; the nearest is 'actors'" "$bin/tdmpc2" launch "$work/bad.yaml"
expect 'no file' 2 'none.yaml' "$bin/tdmpc2" launch "$work/none.yaml"
expect 'no name' 2 'which run?' "$bin/tdmpc2" launch
expect 'an unknown word' 2 "'--dry' is not what launch takes" "$bin/tdmpc2" launch "$work/bad.yaml" --dry
rm "$work/bad.yaml"

# --- this machine ---
run=$work/here
cat >"$work/here.yaml" <<Y
name: here
dir: $run
options: {$toy}
actors: {count: 3, options: {envs: 2}}
Y
expect 'a dry run' 0 'part start' "$bin/tdmpc2" launch "$work/here.yaml" --dry-run
[ ! -e "$run" ] && ok || no 'a dry run made something'
expect 'scale before launch' 2 'does not run' "$bin/tdmpc2" scale "$work/here.yaml" actors=4
expect launch 0 'actors: 3 joined' "$bin/tdmpc2" launch "$work/here.yaml"
expect 'launch again' 0 'runs already' "$bin/tdmpc2" launch "$work/here.yaml"
expect status 0 'actor-0 actor-1 actor-2 learner' "$bin/tdmpc2" status "$work/here.yaml"
expect logs 0 'joined' "$bin/tdmpc2" logs "$work/here.yaml" actor-1
kill -KILL "$(cut -d' ' -f4 "$run/run/actor-1.pid")"
again() { for _ in $(seq 50); do "$bin/tdmpc2" status "$work/here.yaml" | grep -q 'restarts: 1' && return; sleep 0.1; done; return 1; }
again && ok || no 'a killed actor is not started again'
# a pid that another process has by now is not taken for the part, nor killed
sleep 60 & other=$!
awk -v pid=$other '{$2 = pid; $3 = 1; $4 = pid; $5 = 1; $7 = -1; print}' "$run/run/actor-0.pid" | sed 's/actor-0/actor-9/' >"$run/run/actor-9.pid"
expect 'a stranger is not a part' 0 'actor-9 is gone' "$bin/tdmpc2" status "$work/here.yaml"

# 64 join within 5 s, leave within 5 s, and all that was acknowledged is in the store
start=$EPOCHREALTIME
expect '64 actors' 0 'actors: 64 joined' "$bin/tdmpc2" scale "$work/here.yaml" actors=64
up=$(awk "BEGIN {print $EPOCHREALTIME - $start}")
sleep 1
expect 'down by 32' 0 '0 started, 32 left' "$bin/tdmpc2" scale "$work/here.yaml" actors=32
expect 'up by 32' 0 '32 started, 0 left' "$bin/tdmpc2" scale "$work/here.yaml" actors=64
expect 'down by 32 again' 0 '0 started, 32 left' "$bin/tdmpc2" scale "$work/here.yaml" actors=32
if grep -q 'rows were not acknowledged\|dropped' "$run"/actor-*.log; then no 'rows were lost on the way down'; else ok; fi
[ "$(grep -l 'msg="leaving" why="asked to stop"' "$run"/actor-{32..63}.log | wc -l)" -ge 31 ] && ok || { no 'actors did not leave in order'; tail -n 2 "$run"/actor-4?.log; }
steps=$(metric "$run" replay agent_steps)
start=$EPOCHREALTIME
expect stop 0 'stopped: 33 parts' "$bin/tdmpc2" stop "$work/here.yaml"
down=$(awk "BEGIN {print $EPOCHREALTIME - $start}")
echo "64 actors joined in $up s, 32 and the learner stopped in $down s"
kill -0 $other 2>/dev/null && ok || no 'a stranger was killed'
kill $other
none_left "$run" && ok || { no 'processes are left'; pgrep -fa "$run"; }
expect 'the store is whole' 0 'every hash holds' "$bin/tdmpc2" replay verify "$run/replay"
stored=$(sed -n 's/.* \([0-9]*\) rows.*/\1/p' "$work/out")
[ "$steps" -gt 300 ] && [ "${stored:-0}" -ge "$steps" ] && ok || no "$steps steps were acknowledged, $stored rows are stored"
expect 'status after stop' 0 'no learner runs' "$bin/tdmpc2" status "$work/here.yaml"
sed 's/toy,/toy, obs: rgb,/' "$work/here.yaml" >"$work/wrong.yaml"
expect "what the learner says is said" 2 'obs' "$bin/tdmpc2" launch "$work/wrong.yaml"

# once `part start` is back every part is noted: nobody takes the note of an earlier one for it
"$bin/tdmpc2" part start "$work/again" tdmpc2-actor "$(seq -s, -f 'actor-%g' 0 39)" task=nothing >/dev/null
noted=$(find "$work/again/run" -name 'actor-*.pid' | wc -l)
[ "$noted" = 40 ] && ok || no "$noted of 40 parts were noted when they had been started"

# --- over ssh: 127.0.0.2 and 127.0.0.3, an sshd of our own ---
if [ "$(id -u)" -ne 0 ] || ! command -v sshd >/dev/null || ! command -v ssh-keygen >/dev/null; then
    skipped=$((skipped + 1)); echo 'skipped: ssh needs root and the package openssh-server'
else
    mkdir -p "$work/ssh" "$work/h2" "$work/h3" /run/sshd
    ssh-keygen -q -t ed25519 -N '' -f "$work/ssh/host"
    ssh-keygen -q -t ed25519 -N '' -f "$work/ssh/user"
    cp "$work/ssh/user.pub" "$work/ssh/authorized"; chmod 600 "$work/ssh/authorized"
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.2", 0)); print(s.getsockname()[1])')
    cat >"$work/ssh/sshd_config" <<S
Port $port
ListenAddress 127.0.0.2
ListenAddress 127.0.0.3
HostKey $work/ssh/host
AuthorizedKeysFile $work/ssh/authorized
PidFile none
PasswordAuthentication no
UsePAM no
StrictModes no
PermitRootLogin prohibit-password
MaxStartups 100
Match LocalAddress 127.0.0.2
    ForceCommand cd $work/h2 && eval "\$SSH_ORIGINAL_COMMAND"
Match LocalAddress 127.0.0.3
    ForceCommand cd $work/h3 && eval "\$SSH_ORIGINAL_COMMAND"
S
    cat >"$work/ssh/config" <<S
Port $port
IdentityFile $work/ssh/user
IdentitiesOnly yes
UserKnownHostsFile $work/ssh/known
LogLevel ERROR
S
    for address in 127.0.0.2 127.0.0.3; do echo "[$address]:$port $(cut -d' ' -f1-2 "$work/ssh/host.pub")"; done >"$work/ssh/known"
    "$(command -v sshd)" -D -f "$work/ssh/sshd_config" -E "$work/ssh/log" & sshd=$!
    for _ in $(seq 50); do (: </dev/tcp/127.0.0.3/$port) 2>/dev/null && break; sleep 0.1; done
    cat >"$work/far.yaml" <<Y
name: far
engine: ssh
dir: run
programs: copy
ssh: [-F, $work/ssh/config]
options: {$toy}
learner: {host: 127.0.0.2}
actors: {count: 4, hosts: [127.0.0.2, 127.0.0.3]}
Y
    expect 'a dry run over ssh' 0 '127.0.0.3' "$bin/tdmpc2" launch "$work/far.yaml" --dry-run
    expect 'launch over ssh' 0 'actors: 4 joined' "$bin/tdmpc2" launch "$work/far.yaml"
    [ -x "$(echo "$work"/h3/.cache/tdmpc2/*/bin/tdmpc2-actor)" ] && ok || no 'the programs are not on the second host'
    (cd "$work/h3/run/keys" && ls | xargs) | grep -qx 'actor-1.key actor-3.key allowed' && ok || { no 'the second host has other keys than its own'; ls "$work/h3/run/keys"; }
    [ "$(find "$work"/h?/run/keys -type f ! -perm 600 | wc -l)$(find "$work"/h?/run/keys -maxdepth 0 ! -perm 700 | wc -l)" = 00 ] && ok || no 'keys can be read by others'
    # seen by nobody among the words or in the environment of any process
    grep -o 'secret-key = "[^"]*' "$work/h3/run/keys/actor-1.key" | cut -d'"' -f2 >"$work/secret"
    [ -s "$work/secret" ] && ! grep -qaFf "$work/secret" /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null && ok || no 'a secret among words or in an environment'
    grep -q 'joined.*tcp://127.0.0.2' "$work/h3/run/actor-1.log" && ok || no 'the second host does not use the network'
    expect 'status over ssh' 0 'actor-1 actor-3' "$bin/tdmpc2" status "$work/far.yaml"
    expect 'scale over ssh' 0 '2 started, 0 left' "$bin/tdmpc2" scale "$work/far.yaml" actors=6
    expect 'scale down over ssh' 0 '0 started, 5 left' "$bin/tdmpc2" scale "$work/far.yaml" actors=1
    expect 'logs over ssh' 0 'joined' "$bin/tdmpc2" logs "$work/far.yaml" actor-0

    # the learner dies and comes back at another port: its actors find it there
    expect 'scale to find it again' 0 '3 started' "$bin/tdmpc2" scale "$work/far.yaml" actors=4
    kill -KILL $(cut -d' ' -f2 "$work/h2/run/run/learner.pid") $(cut -d' ' -f4 "$work/h2/run/run/learner.pid")
    sleep 0.5
    expect 'launch after its death' 0 'actors: 4 joined' "$bin/tdmpc2" launch "$work/far.yaml"
    grep -q 'the learner is elsewhere' "$work/h3/run/actor-1.log" && ok || { no 'an actor did not follow'; tail -n 5 "$work/h3/run/actor-1.log"; }
    expect 'stop over ssh' 0 'stopped: 5 parts' "$bin/tdmpc2" stop "$work/far.yaml"
    none_left "$work/h2" && none_left "$work/h3/run" && ok || { no 'processes are left'; pgrep -fa "$work/h"; }
    sed 's/127.0.0.2}/127.0.0.4}/' "$work/far.yaml" >"$work/lost.yaml"
    expect 'a host that is not there' 1 'no way to 127.0.0.4 by ssh' "$bin/tdmpc2" launch "$work/lost.yaml"
    rm "$work/lost.yaml"
fi

echo "[==========] $((passed + failed + skipped)) test(s) run."
echo "[  PASSED  ] $passed test(s)."
[ "$skipped" -gt 0 ] && echo "[  SKIPPED ] $skipped test(s)."
[ "$failed" -eq 0 ] || { echo "[  FAILED  ] $failed test(s)."; exit 1; }
