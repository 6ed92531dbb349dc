"""64 actors of a stand-in policy on this machine: how fast they join and leave, what watching them costs.

    fleet.py BIN [ACTORS]

Started by `tdmpc2 launch`, asked over HTTP as Prometheus and a browser would ask, stopped by `tdmpc2 stop`. The share of
the learner's loop thread is all that it does, with two actors and then with all: with utd 1 both make as many steps and
updates a second, and the difference is what the others' reports cost.
"""
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request

OPTIONS = ('task: toy, enc_dim: 16, mlp_dim: 16, latent_dim: 16, num_q: 2, batch_size: 16, mpc: false, seed_steps: 200, '
           'steps: 100000000, eval_freq: 100000000, eval_episodes: 1, metrics: 0, dashboard: 0')


def run(*words):
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f'{" ".join(words)}: exit {done.returncode}\n{done.stdout}{done.stderr}')
    return done.stdout


def ask(url, times):
    took = []
    for _ in range(times):
        begun = time.perf_counter()
        with urllib.request.urlopen(url, timeout=5) as answer:
            size = len(answer.read())
        took.append(1e3 * (time.perf_counter() - begun))
        time.sleep(0.01)
    took.sort()
    return f'median {took[len(took) // 2]:.1f} ms, p99 {took[int(0.99 * (len(took) - 1))]:.1f} ms, {size} bytes'


def loop_seconds(pid):
    with open(f'/proc/{pid}/task/{pid}/stat') as file:
        fields = file.read().rsplit(')', 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def metric(program, run_dir, name):
    parts = json.loads(run(program, 'stats', run_dir, '--json'))['parts']
    return [p['metrics'].get(name, 0) for p in parts if p['role'] == 'learner'][0]


def loop_share(program, run_dir, seconds=15):
    """Of a core, in per cent, and agent steps a second."""
    parts = json.loads(run(program, 'stats', run_dir, '--json'))['parts']
    pid = [p['pid'] for p in parts if p['role'] == 'learner'][0]
    busy, begun, steps = loop_seconds(pid), time.monotonic(), metric(program, run_dir, 'agent_steps')
    time.sleep(seconds)
    took = time.monotonic() - begun
    return 100 * (loop_seconds(pid) - busy) / took, (metric(program, run_dir, 'agent_steps') - steps) / took


def measure(program, actors, utd, work):
    """utd: updates per agent step; the more, the fewer steps the limiter lets through."""
    run_dir, file = f'{work}/run', f'{work}/fleet.yaml'
    with open(file, 'w') as out:
        out.write(f'name: fleet\ndir: {run_dir}\noptions: {{{OPTIONS}, utd: {utd}}}\nactors: {{count: 0}}\n')
    run(program, 'launch', file)
    try:
        run(program, 'scale', file, 'actors=2')
        time.sleep(3)
        few = loop_share(program, run_dir)
        begun = time.monotonic()
        run(program, 'scale', file, f'actors={actors}')
        print(f'utd {utd}: from 2 to {actors} actors joined in {time.monotonic() - begun:.2f} s')
        time.sleep(3)
        many = loop_share(program, run_dir)
        print(f"learner's loop, all it does: {few[0]:.2f} % of a core at {few[1]:.0f} agent steps/s with 2 actors, "
              f'{many[0]:.2f} % at {many[1]:.0f} with {actors}')
        with open(f'{run_dir}/learner.log') as log:
            text = log.read()
        pages = [url.rstrip('/') for url in re.findall(r'http://[0-9.:]+/?', text)]
        for url in dict.fromkeys(pages):
            for path in ('/metrics', '/', '/history.json', '/train.csv'):
                try:
                    print(f'{url}{path}: {ask(url + path, 300)}')
                except OSError:
                    pass
    finally:
        begun = time.monotonic()
        run(program, 'stop', file)
        print(f'all stopped in {time.monotonic() - begun:.2f} s')
    left = subprocess.run(['pgrep', '-f', run_dir], capture_output=True, text=True).stdout.split()
    print(f'{len(left)} processes left')


if __name__ == '__main__':
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    for wanted in (0.01, 1):
        with tempfile.TemporaryDirectory() as folder:
            measure(os.path.abspath(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 64, wanted, folder)
