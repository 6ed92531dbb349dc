"""Reads a run's event files with the real tensorboard package and compares them with its csv files.

    python read_events.py RUN_DIR [lives]      lives: how often the learner was started
"""
import csv
import glob
import math
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator, STORE_EVERYTHING_SIZE_GUIDANCE
from tensorboard.plugins.hparams import plugin_data_pb2
from tensorboard.util import tensor_util

run, lives = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1
assert len(glob.glob(run + "/events.out.tfevents.*")) == lives, "a file per life of the learner"
board = EventAccumulator(run, size_guidance=STORE_EVERYTHING_SIZE_GUIDANCE)
board.Reload()
tags = board.Tags()["scalars"]


def points(tag):
    return [(e.step, e.value) for e in board.Scalars(tag)]


def rows(name, column):
    with open(run + "/" + name) as f:
        return [(int(r["step"]), float(r[column])) for r in csv.DictReader(f) if r[column] != ""]


def near(a, b):
    return a[0] == b[0] and (a[1] == b[1] or math.isclose(a[1], b[1], rel_tol=1e-6))


def unique(pairs):
    """What came again after a return to a checkpoint is the same again."""
    out = []
    for p in pairs:
        if not out or out[-1] != p:
            out.append(p)
    return out


for tag in ["consistency_loss", "reward_loss", "value_loss", "total_loss", "grad_norm", "pi_loss", "pi_scale",
            "episode_reward", "episode_length", "elapsed_time", "steps_per_second"]:
    assert "train/" + tag in tags, f"no train/{tag} in {tags}"
evals = rows("eval.csv", "episode_reward")
assert evals, "no evaluation"
shown = unique(points("eval/episode_reward"))
assert len(shown) == len(evals) and all(map(near, shown, evals)), (shown, evals)
train = rows("train.csv", "episode_reward")
shown = points("train/episode_reward")
assert len(shown) > 3 and all(any(near(s, t) for t in train) for s in shown), (shown[:5], train[:5])
steps = [s for s, _ in unique(shown)]
assert steps == sorted(steps), "a point that was taken back is still shown"

text = [t for t in board.Tags()["tensors"] if t == "config/text_summary"]
assert text, board.Tags()
value = tensor_util.make_ndarray(board.Tensors("config/text_summary")[-1].tensor_proto)[0].decode()
assert "task: toy" in value, value
content = board.summary_metadata["_hparams_/session_start_info"].plugin_data.content
hparams = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
assert hparams["task"].string_value == "toy" and hparams["batch_size"].number_value == 16, hparams
assert hparams["mpc"].bool_value is False
images = board.Tags()["images"]
for tag in images:
    for image in board.Images(tag):
        assert image.encoded_image_string[:4] == b"GIF8", "not a GIF"
print(f"{len(tags)} scalars, {len(shown)} train and {len(evals)} eval points, {sum(len(board.Images(t)) for t in images)} images")
