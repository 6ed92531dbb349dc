#!/usr/bin/env bash
# `train dashboard=0`: the address is printed, the page is there, its numbers are the stats socket's, a killed actor
# shows within five seconds. `make test-dashboard` looks at it with a real browser.
set -u
build=${TD_BUILD:-build/release}
work=$(mktemp -d); run=$work/run
trap 'kill "$pid" 2>/dev/null; wait 2>/dev/null; rm -rf "$work"' EXIT
out=$work/out
. tests/support/checks.sh

"$build/bin/tdmpc2" train task=toy steps=1000000 seed_steps=200 model_size=1 batch_size=16 mpc=false actors=1 evaluator=off \
    dashboard=0 work_dir="$run" >"$out" 2>&1 </dev/null &
pid=$!
for (( i = 0; i < 200; i++ )); do grep -q '^dashboard: ' "$out" && break; sleep 0.05; done
address=$(sed -n 's|^dashboard: http://\(127\.0\.0\.1:[0-9]*\)/$|\1|p' "$out")
check 'the address is printed' [ -n "$address" ]
require 'an address'

cat >"$work/look.py" <<'P'
import http.client, json, os, signal, subprocess, sys, time
address, tool, run, what = sys.argv[1:5]

def get(path, headers={}):
    connection = http.client.HTTPConnection(address, timeout=5)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    return answer, answer.read() if path != "/events" else b""

def events():
    connection = http.client.HTTPConnection(address, timeout=10)
    connection.request("GET", "/events")
    for line in connection.getresponse():
        if line.startswith(b"data: "):
            yield json.loads(line[6:])

def stats():
    told = json.loads(subprocess.run([tool, "stats", run, "--json"], capture_output=True, text=True).stdout)
    return [part for part in told["parts"] if part["role"] == "learner"][0]

def actor(event):
    found = [part for part in event["parts"] if part["role"] == "actor"]
    return found[0] if found else None

if what == "page":
    answer, body = get("/")
    assert answer.status == 200 and b"<title>tdmpc2</title>" in body and b"page.js" in body
    assert "default-src 'none'" in answer.getheader("Content-Security-Policy")
    assert b"toy" in get("/config.yaml")[1]
    assert get("/video.mp4")[0].status == 404
    assert json.loads(get("/history.json")[1])["columns"][0] == "time"
elif what == "hostile":
    assert get("/", {"Host": "evil.example"})[0].status == 403
    assert get("/dashboard.token")[0].status == 404 and get("/../config.yaml")[0].status == 404
elif what == "numbers":
    # what does not change is equal; what grows lies between two looks at the stats socket
    stream = events()
    for event in stream:
        if event["stats"] and event["stats"]["metrics"].get("updates", 0) > 0 and actor(event):
            break
    before = stats()
    next(stream); shown = next(stream)["stats"]
    after = stats()
    assert shown["process"] == before["process"] == after["process"] and shown["run"] == before["run"]
    names = [name for name in before["metrics"] if name in after["metrics"]]
    missing = [name for name in names if name not in shown["metrics"]]
    assert len(names) > 20 and not missing, missing
    for name in ("updates", "agent_steps", "env_steps", "episodes", "slices", "parameter_version", "received_bytes", "replay_rows"):
        low, here, high = before["metrics"][name], shown["metrics"][name], after["metrics"][name]
        assert low <= here <= high, (name, low, here, high)
    assert before["metrics"]["updates"] < after["metrics"]["updates"]
    for name in ("target_steps", "target_ratio", "replay_capacity", "learner_epoch", "limiter_slack"):
        assert before["metrics"][name] == shown["metrics"][name], name
elif what == "killed":
    stream = events()
    first = actor(next(stream))
    pid = int(json.load(open(run + "/run/actor-0.addr"))["pid"])
    os.kill(pid, signal.SIGKILL)
    begin = time.time()
    for event in stream:
        now = actor(event)
        if now is None or now["process"] != first["process"] or now["health"] != "live":
            break
        assert time.time() - begin < 5, "nothing shows"
P
look() { python3 "$work/look.py" "$address" "$build/bin/tdmpc2" "$run" "$1" >>"$out" 2>&1; }
check 'the page is there' look page
check 'others are refused' look hostile
check "numbers are the stats socket's" look numbers
check 'a killed actor shows within 5 s' look killed
kill -INT $pid; wait $pid
check 'an orderly end' [ $? -eq 0 ]
check 'no token is left on loopback' [ ! -e "$run/dashboard.token" ]
refused() { "$build/bin/tdmpc2" train task=toy steps=10 dashboard=nonsense work_dir="$work/bad" >"$out" 2>&1; [ $? -eq 2 ] && grep -q 'HOST:PORT' "$out" && [ ! -e "$work/bad/config.yaml" ]; }
check 'a bad address is refused' refused
totals
