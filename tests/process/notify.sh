#!/usr/bin/env bash
# What the daemons tell systemd, heard by a socket of this test: ready when they are, alive, stopping.
set -uo pipefail
cd "$(dirname "$0")/../.."
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 - "${TD_BUILD:-build/release}/bin" "$work" <<'END'
import os, signal, socket, struct, subprocess, sys, time

bin, work = sys.argv[1:]
good = bad = 0

def check(what, condition, seen=""):
    global good, bad
    if condition:
        good += 1
    else:
        bad += 1
        print(f"{what}: {seen}")

class Part:
    """A daemon and all that was heard of it: (process, key, value)."""
    def __init__(self, name, *words, **variables):
        self.path = f"{work}/{name}.sock"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.socket.bind(self.path)
        self.heard = []
        self.log = open(f"{work}/{name}.log", "w+")
        env = dict(os.environ, NOTIFY_SOCKET=self.path, WATCHDOG_USEC="2000000", TDMPC2_RUNTIME_DIR=f"{work}/r", **variables)
        self.process = subprocess.Popen([f"{bin}/tdmpc2-{words[0]}", *words[1:]], env=env, stdin=subprocess.DEVNULL,
                                        stdout=self.log, stderr=self.log)

    def listen(self, seconds, until=None):
        end = time.monotonic() + seconds
        while time.monotonic() < end and not (until and self.said(until)):
            self.socket.settimeout(max(0.01, end - time.monotonic()))
            try:
                data, extra, _, _ = self.socket.recvmsg(4096, 256)
            except socket.timeout:
                break
            pid = struct.unpack("3i", extra[0][2])[0]
            self.heard += [(pid, *line.split("=", 1)) for line in data.decode().splitlines()]
        return self.said(until) if until else 0

    def said(self, key):
        return sum(1 for _, k, _ in self.heard if k == key)

    def text(self):
        self.log.seek(0)
        return f"{self.heard} {self.log.read()[-2000:]}"

small = ["enc_dim=16", "mlp_dim=16", "latent_dim=16", "num_q=2", "num_bins=11", "num_samples=16", "num_elites=4",
         "num_pi_trajs=4", "iterations=2", "eval_first=false"]
parts = []
try:
    learner = Part("learner", "learner", "task=toy", "steps=1000000", f"work_dir={work}/run", "evaluator=off", *small)
    lost = Part("lost", "actor", f"learner=ipc://{work}/nobody", "learner_timeout=100")
    parts = [learner, lost]
    check("the learner becomes ready", learner.listen(30, "READY") == 1, learner.text())
    actor = Part("actor", "actor", f"work_dir={work}/run")
    parts.append(actor)
    check("an actor becomes ready", actor.listen(20, "READY") == 1, actor.text())
    learner.listen(2.2)
    check("the learner is alive", 2 <= learner.said("WATCHDOG") <= 9, learner.text())
    check("its children are silent", {p for p, _, _ in learner.heard} == {learner.process.pid}, learner.text())
    check("ready is said once", learner.said("READY") == 1, learner.text())
    check("what it does is said", any(k == "STATUS" and "agent steps" in v for _, k, v in learner.heard), learner.text())
    shard = Part("shard", "replay", "learner=tcp://127.0.0.1:9", "bind=tcp://127.0.0.1:*", "shard=1", "shards=2", f"replay_dir={work}/shard")
    parts.append(shard)
    check("a shard that listens is ready", shard.listen(20, "READY") == 1, shard.text())
    lost.listen(0.2)
    check("an actor without a learner is not ready", lost.said("READY") == 0 and lost.said("WATCHDOG") > 0, lost.text())
    check("and says why", any(k == "STATUS" and "waits for the learner" in v for _, k, v in lost.heard), lost.text())
    for part in (actor, lost, shard, learner):
        part.process.send_signal(signal.SIGTERM)
        check("the end is said", part.listen(15, "STOPPING") == 1, part.text())
        check("and comes", part.process.wait(20) == 0, part.text())
    odd = subprocess.run([f"{bin}/tdmpc2-actor", "learner=nonsense"], env=dict(os.environ, NOTIFY_SOCKET="vsock:2:1"),
                         capture_output=True, text=True, timeout=20)
    check("a socket of another kind is named", "NOTIFY_SOCKET=vsock:2:1 is neither" in odd.stderr, odd.stderr)
finally:
    for part in parts:
        if part.process.poll() is None:
            part.process.kill()

print(f"[==========] {good + bad} test(s) run.\n[  PASSED  ] {good} test(s).")
if bad:
    print(f"[  FAILED  ] {bad} test(s).")
sys.exit(bad > 0)
END
