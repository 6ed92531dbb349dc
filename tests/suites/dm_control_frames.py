"""dm_control's own frames, beside ours.

    dm_control_frames.py record FOLDER    a reset and three steps of one task of each domain, as `tdmpc2 env replay` reads them
    dm_control_frames.py speed BIN        frames a second of its OSMesa path and of `tdmpc2 bench render`, in turn

Wants what `deploy/setup-suite dm_control` installs. 64 x 64 pixels, camera 0 (quadruped: 2), an action
repeated twice, three frames stacked: the reference's.
"""
import json
import os
import statistics
import struct
import subprocess
import sys
import time

os.environ['MUJOCO_GL'] = 'osmesa'
import numpy as np                       # noqa: E402
from dm_control import suite             # noqa: E402

TASKS = {'acrobot-swingup': ('acrobot', 'swingup'), 'cartpole-swingup': ('cartpole', 'swingup'), 'cup-catch': ('ball_in_cup', 'catch'),
         'dog-run': ('dog', 'run'), 'finger-spin': ('finger', 'spin'), 'fish-swim': ('fish', 'swim'), 'hopper-hop': ('hopper', 'hop'),
         'humanoid-walk': ('humanoid', 'walk'), 'pendulum-swingup': ('pendulum', 'swingup'), 'reacher-easy': ('reacher', 'easy'),
         'walker-walk': ('walker', 'walk'), 'cheetah-run': ('cheetah', 'run'), 'quadruped-walk': ('quadruped', 'walk'),
         'quadruped-run': ('quadruped', 'run'), 'humanoid-run': ('humanoid', 'run')}
SEED, STEPS, REPEAT, SIDE, STACK = 1, 3, 2, 64, 3


def make(task):
    domain, name = TASKS[task]
    env = suite.load(domain, name, task_kwargs={'random': SEED}, visualize_reward=False)
    spec = env.action_spec()
    low, high = spec.minimum.astype(np.float64), spec.maximum.astype(np.float64)
    return env, lambda action: low + (high - low) / 2 * (action.astype(np.float64) + 1)


def draw(env, task):
    return env.physics.render(SIDE, SIDE, camera_id=2 if task.startswith('quadruped') else 0)


def record(task):
    env, scale = make(task)
    rng = np.random.RandomState(7)
    actions = rng.uniform(-1, 1, (STEPS, env.action_spec().shape[0])).astype(np.float32)
    env.reset()
    frames, rewards = [draw(env, task).transpose(2, 0, 1)] * STACK, []
    stacks = [np.concatenate(frames)]
    for action in actions:
        rewards.append(sum(env.step(scale(action)).reward for _ in range(REPEAT)))
        frames = frames[1:] + [draw(env, task).transpose(2, 0, 1)]
        stacks.append(np.concatenate(frames))
    return {'reward': np.array([rewards]), 'action': actions[None], 'obs': np.stack(stacks)[None]}


def save(path, tensors, words):
    kinds = {'float64': 'F64', 'float32': 'F32', 'uint8': 'U8'}
    head, at = {'__metadata__': words}, 0
    for name, value in tensors.items():
        head[name] = {'dtype': kinds[str(value.dtype)], 'shape': list(value.shape), 'data_offsets': [at, at + value.nbytes]}
        at += value.nbytes
    text = json.dumps(head).encode()
    text += b' ' * (-len(text) % 8)
    with open(path, 'wb') as file:
        file.write(struct.pack('<Q', len(text)) + text + b''.join(np.ascontiguousarray(v).tobytes() for v in tensors.values()))


def ours(program):
    """task -> (milliseconds exact, fast)"""
    out = subprocess.run([program, 'bench', 'render', 'seconds=1', '--json'], capture_output=True, text=True, check=True).stdout
    found = {}
    for line in out.splitlines():
        result = json.loads(line)
        task = result['variant'].split(',')[0].removeprefix('task=')
        found.setdefault(task, {})['fast' if ', fast' in result['variant'] else 'exact'] = result['median_ms']
    return found


def theirs(task, seconds=1.0):
    env, scale = make(task)
    rng = np.random.RandomState(7)
    env.reset()
    draw(env, task)
    times, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        env.step(scale(rng.uniform(-1, 1, env.action_spec().shape[0])))
        begun = time.perf_counter()
        draw(env, task)
        times.append(1e3 * (time.perf_counter() - begun))
    return statistics.median(times)


def speed(program, rounds=5):
    tasks = ['walker-walk', 'cheetah-run', 'quadruped-walk', 'quadruped-run', 'humanoid-run']
    rows = {task: [] for task in tasks}
    for _ in range(rounds):
        own = ours(program)
        for task in tasks:
            rows[task].append((theirs(task), own[task]['exact'], own[task]['fast']))
    for task, row in rows.items():
        dm, exact, fast = (statistics.median(column) for column in zip(*row))
        ratio = statistics.median(r[0] / r[2] for r in row)
        print(f'{task}: dm_control {1e3 / dm:.1f} frames/s, exact {1e3 / exact:.1f}, fast {1e3 / fast:.1f}: {ratio:.2f} times dm_control\'s')


if __name__ == '__main__':
    if len(sys.argv) != 3 or sys.argv[1] not in ('record', 'speed'):
        sys.exit(__doc__)
    if sys.argv[1] == 'speed':
        speed(sys.argv[2])
    else:
        for task in TASKS:
            save(f'{sys.argv[2]}/{task}.rgb.traj.safetensors', record(task),
                 {'obs': 'rgb', 'mujoco': '3.1.2', 'task': task, 'dm_control': '1.0.16', 'seed': str(SEED)})
