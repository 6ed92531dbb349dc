#!/usr/bin/env bash
# `tdmpc2 launch --on slurm` on a real Slurm of one machine, started here: munge, slurmctld, slurmd of our own.
set -u
bin=${TD_BUILD:-build/release}/bin
case $bin in /*) ;; *) bin=$PWD/$bin ;; esac
if [ "$(id -u)" -ne 0 ] || ! command -v slurmctld >/dev/null || ! command -v slurmd >/dev/null || ! command -v munged >/dev/null; then
    echo 'skipped: needs root and the packages slurm-wlm, munge'
    echo '[==========] 1 test(s) run.'; echo '[  PASSED  ] 0 test(s).'; echo '[  SKIPPED ] 1 test(s).'
    exit 0
fi
work=$(mktemp -d /tmp/tdslurm.XXXXXX)
chmod 755 "$work"
passed=0 failed=0 pids=()
leave() {
    scancel --me 2>/dev/null
    for _ in $(seq 30); do pgrep -f "$work/run" >/dev/null || break; sleep 0.1; done
    pkill_ours
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null; done
    for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null; done
    rm -rf "$work"
}
pkill_ours() { for pid in $(pgrep -f "$work/run"); do kill -KILL "$pid" 2>/dev/null; done; }
trap leave EXIT
ok() { passed=$((passed + 1)); }
no() { failed=$((failed + 1)); echo "FAILED: $*"; squeue -r 2>&1 | head; tail -n 8 "$work"/run/*.log 2>/dev/null; tail -n 5 "$work"/slurm/*.log; }
expect() {
    local what=$1 code=$2 text=$3 got; shift 3
    timeout 120 "$@" >"$work/out" 2>&1 </dev/null; got=$?
    if [ $got = "$code" ] && grep -qF -- "$text" "$work/out"; then ok; else no "$what: exit $got"; cat "$work/out"; fi
}
# until_true SECONDS COMMAND...
until_true() { local end=$((SECONDS + $1)); shift; until "$@" 2>/dev/null; do [ $SECONDS -lt $end ] || return 1; sleep 0.2; done; }
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# --- a cluster of one machine ---
mkdir -p "$work/slurm/state" "$work/slurm/spool" "$work/munge"
dd if=/dev/urandom of="$work/munge/key" bs=64 count=1 2>/dev/null
chmod 400 "$work/munge/key"; chown -R munge: "$work/munge"
setpriv --reuid=munge --regid=munge --clear-groups -- "$(command -v munged)" --foreground --key-file="$work/munge/key" --socket="$work/munge/socket" \
    --pid-file="$work/munge/pid" --seed-file="$work/munge/seed" --log-file="$work/munge/log" --num-threads=1 &
pids+=($!)
host=$(hostname -s)
cat >"$work/slurm/slurm.conf" <<S
ClusterName=td
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$work/munge/socket
CryptoType=crypto/munge
MpiDefault=none
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
StateSaveLocation=$work/slurm/state
SlurmdSpoolDir=$work/slurm/spool
SlurmctldPidFile=$work/slurm/ctld.pid
SlurmdPidFile=$work/slurm/d.pid
SlurmctldLogFile=$work/slurm/ctld.log
SlurmdLogFile=$work/slurm/d.log
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0
ReturnToService=2
KillWait=20
NodeName=$host NodeAddr=127.0.0.1 CPUs=16 Boards=1 SocketsPerBoard=1 CoresPerSocket=16 ThreadsPerCore=1 State=UNKNOWN
PartitionName=all Nodes=$host Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:4
S
export SLURM_CONF=$work/slurm/slurm.conf
until_true 10 test -S "$work/munge/socket" || { echo 'munge does not start:'; cat "$work/munge/log"; }
slurmctld -D >/dev/null 2>&1 & pids+=($!)
slurmd -D >/dev/null 2>&1 & pids+=($!)
idle() { sinfo -h -o %T | grep -q idle; }
until_true 20 idle && ok || { no 'Slurm does not start'; tail "$work/slurm/"*.log "$work/munge/log"; echo "[  FAILED  ] 1 test(s)."; exit 1; }

# --- a run ---
cat >"$work/run.yaml" <<Y
name: queued
engine: slurm
dir: $work/run
options: {task: toy, model_size: 1, batch_size: 16, mpc: false, seed_steps: 200, steps: 100000000, eval_freq: 100000000, eval_episodes: 1, heartbeat: 0.5}
learner: {address: 127.0.0.1, cpus: 1, time: "10"}
actors: {count: 2, partition: all, cpus: 1}
Y
expect 'a dry run' 0 '#SBATCH --signal=B:USR1@120' "$bin/tdmpc2" launch "$work/run.yaml" --dry-run
[ ! -e "$work/run" ] && ok || no 'a dry run made something'
for part in learner actor; do # what it prints is what bash takes
    awk -v part="$part.sbatch" '/^# /{on = index($0, part)} on && !/^# \//' "$work/out" | bash -n && ok || no "the script of the $part"
done
expect launch 0 'actors 0-1' "$bin/tdmpc2" launch "$work/run.yaml"
joined() { [ "$("$bin/tdmpc2" part joined "$work/run" "$1" 1)" = "$1" ]; }
until_true 30 joined 2 && ok || no 'two actors do not join'
expect 'launch again' 0 'is there already' "$bin/tdmpc2" launch "$work/run.yaml"
expect status 0 'actors RUNNING: 2' "$bin/tdmpc2" status "$work/run.yaml"
[ "$(find "$work/run/keys" -type f ! -perm 600 | wc -l)" = 0 ] && [ -s "$work/run/keys/actor-1.key" ] && ok || no 'keys'
expect 'scale up' 0 '4 actors' "$bin/tdmpc2" scale "$work/run.yaml" actors=4
until_true 20 joined 4 && ok || no 'four actors do not join'
expect 'scale down' 0 '1 actors: 3 left' "$bin/tdmpc2" scale "$work/run.yaml" actors=1
for actor in 1 2 3; do grep -q 'msg="leaving" why="asked to stop"' "$work/run/actor-$actor.log" && ok || no "actor $actor did not leave in order"; done
expect logs 0 'slot' "$bin/tdmpc2" logs "$work/run.yaml"

# what Slurm does to a job that is preempted: SIGTERM, back into the queue, on again from its checkpoint
updates() { grep -o 'msg="train".* updates=[0-9]*' "$work/run/learner.log" | tail -n 1 | grep -o '[0-9]*$'; }
before=$(updates)
job=$(squeue -h -n queued-learner -o %i)
scontrol requeue "$job"
gone() { grep -q 'msg="leaving"' "$work/run/learner.log"; }
until_true 30 gone && ok || no 'the learner was not told to end'
grep -q 'checkpoint written' "$work/run/learner.log" && ok || no 'no checkpoint before it was requeued'
back() { # Slurm lets what it requeued wait for two minutes
    scontrol update job="$job" StartTime=now 2>/dev/null
    [ "$(grep -c 'msg="listening"' "$work/run/learner.log")" = 2 ]
}
until_true 60 back && ok || { no 'the learner does not come back'; scontrol show job "$job"; }
until_true 30 joined 1 && ok || no 'its actor does not find it again'
further() { [ "$(updates)" -gt "$before" ]; }
until_true 20 further && ok || no "updates went from $before back to $(updates)"
expect stop 0 'stopped:' "$bin/tdmpc2" stop "$work/run.yaml"
[ -z "$(squeue -h)" ] && ok || no 'jobs are left'
pgrep -f "$work/run " >/dev/null && no 'processes are left' || ok
expect 'stop again' 0 'nothing runs' "$bin/tdmpc2" stop "$work/run.yaml"

echo "[==========] $((passed + failed)) test(s) run."
echo "[  PASSED  ] $passed test(s)."
[ "$failed" -eq 0 ] || { echo "[  FAILED  ] $failed test(s)."; exit 1; }
