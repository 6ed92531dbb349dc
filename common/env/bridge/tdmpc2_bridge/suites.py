"""From a task's name to an environment and how the reference wraps it (tdmpc2/envs/*.py)."""
import importlib
import importlib.machinery
import importlib.util
import inspect
import os
import sys

from .adapt import Refused, Setup


class Plan:
    """An environment and its wrapping."""

    def __init__(self, env, name, repeat=1, limit=None, direct=False, never_ends=False, after_reset=None,
                 success=None, seeds_reset=True):
        self.env, self.name = env, name
        self.repeat = repeat            # environment steps per agent step, rewards summed, stops at the end
        self.limit = limit              # agent steps; None: the environment's own
        self.direct = direct            # actions are handed on as they are
        self.never_ends = never_ends    # terminated and truncated are ignored
        self.after_reset = after_reset  # (env, obs) -> obs
        self.success = success          # (info, return so far) -> bool; None: info's success or is_success
        self.seeds_reset = seeds_reset  # the first reset takes the seed too


def package(name, command):
    """Import what a suite consists of."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Setup("%s does not work with %s (%s): run `%s`" % (name, sys.executable, error, command)) from error


# --- Meta-World -----------------------------------------------------------------------------------

def metaworld(task, seed):
    envs = package("metaworld.env_dict", "make setup-metaworld")
    import numpy as np
    version = importlib.import_module("importlib.metadata").version("metaworld")
    make = envs.ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE[task[3:] + "-v3-goal-observable"]
    env = make(seed=seed)
    env.model.cam_pos[2] = [0.75, 0.075, 0.7]  # corner2
    env._freeze_rand_vec = False               # another goal in every episode

    def zero_action(inner, obs):
        inner.step(np.zeros(4, np.float32))    # its observation is not used
        return obs

    return Plan(env, "Meta-World %s, %s-v3 (the paper: v2)" % (version, task[3:]), repeat=2, limit=100, direct=True,
                never_ends=True, after_reset=zero_action, seeds_reset=False,
                success=lambda info, _total: info["success"] > 0.5)


# --- MyoSuite -------------------------------------------------------------------------------------

MYOSUITE = {
    "reach": "Reach", "pose": "Pose", "obj-hold": "ObjHold", "key-turn": "KeyTurn", "pen-twirl": "PenTwirl",
}


def myosuite(task, seed):
    suite = package("myosuite", "make setup-myosuite")
    from myosuite.utils import gym
    name = task[4:]
    kind = "Fixed"
    if name.endswith("-hard"):
        name, kind = name[:-5], "Random"
    registered = "myoHand%s%s-v0" % (MYOSUITE[name], kind)
    env = gym.make(registered)
    env.unwrapped.seed(seed)  # goals and objects are drawn from this; reset hands its seed to the robot alone
    return Plan(env, "MyoSuite %s, %s" % (getattr(suite, "__version__", "2.11.6"), registered), limit=100,
                direct=True, never_ends=True, success=lambda info, _total: bool(info["solved"]))


# --- ManiSkill2 -----------------------------------------------------------------------------------

MANISKILL = {
    "lift-cube": ("LiftCube-v0", "pd_ee_delta_pos"),
    "pick-cube": ("PickCube-v0", "pd_ee_delta_pos"),
    "stack-cube": ("StackCube-v0", "pd_ee_delta_pos"),
    "pick-ycb": ("PickSingleYCB-v0", "pd_ee_delta_pose"),
    "turn-faucet": ("TurnFaucet-v0", "pd_ee_delta_pose"),
}


def maniskill(task, _seed):
    data = os.environ.setdefault("MS2_ASSET_DIR", os.path.join(os.path.dirname(sys.prefix), "maniskill-data"))
    package("mani_skill2", "make setup-maniskill")
    package("sapien.core", "make setup-maniskill")
    from . import sapien_headless
    sapien_headless.install()
    import gymnasium
    import mani_skill2.envs  # noqa: F401  (registers them)
    registered, control = MANISKILL[task]
    try:
        env = gymnasium.make(registered, obs_mode="state", control_mode=control, reward_mode="dense")
    except FileNotFoundError as error:
        raise Setup("its assets must be downloaded: run `MS2_ASSET_DIR=%s %s -m "
                    "mani_skill2.utils.download_asset %s`" % (data, sys.executable, registered)) from error
    return Plan(env, "ManiSkill2 0.5.3, %s, dense reward, %s" % (registered, control), repeat=2, limit=100, direct=True,
                success=lambda info, _total: bool(info["success"]))


# --- Gymnasium ------------------------------------------------------------------------------------

REFERENCE = {  # name: (registered, its arguments, limit)
    "mujoco-walker": ("Walker2d-v4", {}, 1000),
    "mujoco-halfcheetah": ("HalfCheetah-v4", {}, 1000),
    "bipedal-walker": ("BipedalWalker-v3", {}, 1600),
    "lunarlander-continuous": ("LunarLander-v3", {"continuous": True}, 500),
}


def make_gym(name, **arguments):
    gymnasium = package("gymnasium", "make setup-gym")
    version = gymnasium.__version__
    try:
        env = gymnasium.make(name, **arguments)
    except gymnasium.error.DependencyNotInstalled as error:
        raise Setup(str(error).replace("\n", " ")) from error
    except (gymnasium.error.Error, ModuleNotFoundError, ValueError) as error:
        raise Refused("Gymnasium %s cannot make %s: %s" % (version, name, str(error).replace("\n", " "))) from error
    return env, "Gymnasium %s, %s" % (version, name)


def drawing(pictures):
    """What makes Gymnasium's environments render."""
    return {"render_mode": "rgb_array"} if pictures else {}


def reference(task, _seed, pictures):
    registered, arguments, limit = REFERENCE[task]
    env, name = make_gym(registered, **arguments, **drawing(pictures))
    lunar = task.startswith("lunarlander")
    return Plan(env, name + (" (the reference: v2)" if lunar else ""), limit=limit,
                success=(lambda _info, total: total > 200) if lunar else None)


def registered(task, _seed, pictures):
    env, name = make_gym(task[len("gym:"):], **drawing(pictures))
    return Plan(env, name)


# --- a class of one's own ---------------------------------------------------------------------------

def takes_render_mode(made):
    try:
        parameters = inspect.signature(made).parameters.values()
    except (TypeError, ValueError):
        return False
    return any(p.name == "render_mode" or p.kind == p.VAR_KEYWORD for p in parameters)


def place_file(path):
    """The name of the module that a file becomes. A file may be called random.py or gymnasium.py: what others mean
    by that name stays what it was."""
    folder, name = os.path.dirname(path), os.path.basename(path)[:-3]
    rest = [place for place in sys.path if os.path.abspath(place) != folder]
    if name in sys.modules or importlib.machinery.PathFinder.find_spec(name, rest) is not None:
        sys.path[:] = rest + [folder]
        return "tdmpc2_user_" + name
    sys.path[:] = [folder] + rest
    return name


def other_python():
    """What `make setup-gym` has made, if it is there and another than this."""
    here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    places = (os.environ.get("TDMPC2_SUITES", ""), os.path.join(here, os.pardir, os.pardir, "third_party"), here)
    for place in places:
        python = os.path.join(os.path.normpath(place), "venv-gym", "bin", "python")
        if place and os.access(python, os.X_OK) and not sys.prefix.endswith("venv-gym"):
            return ", such as %s" % python
    return ""


def python_class(task, _seed, pictures):
    """python:MODULE:CLASS or python:FILE.py:CLASS; called without arguments but, for pictures, render_mode."""
    where, _, name = task[len("python:"):].rpartition(":")
    if not where or not name:
        raise Refused("python:MODULE:CLASS or python:FILE.py:CLASS is expected")
    try:
        if where.endswith(".py"):
            path = os.path.abspath(where)
            if not os.path.exists(path):
                raise Refused("there is no file %s" % path)
            name_of = place_file(path)
            spec = importlib.util.spec_from_file_location(name_of, path)
            module = importlib.util.module_from_spec(spec)
            sys.modules[name_of] = module
            spec.loader.exec_module(module)
        else:
            module = importlib.import_module(where)
    except ModuleNotFoundError as error:
        raise Setup("%s, looked for with %s; TDMPC2_PYTHON names another interpreter%s"
                    % (error, sys.executable, other_python())) from error
    made = getattr(module, name, None)
    if not callable(made):
        raise Refused("%s has no class or function %s" % (where, name))
    arguments = drawing(pictures) if takes_render_mode(made) else {}
    return Plan(made(**arguments), "%s of %s" % (name, where))


def make(task, seed, pictures=False):
    """pictures: the environment is to render, as rgb_array."""
    if task.startswith("gym:"):
        return registered(task, seed, pictures)
    if task.startswith("python:"):
        return python_class(task, seed, pictures)
    if task in REFERENCE:
        return reference(task, seed, pictures)
    if task.startswith("mw-"):
        return metaworld(task, seed)
    if task.startswith("myo-"):
        return myosuite(task, seed)
    if task in MANISKILL:
        return maniskill(task, seed)
    raise Refused("the bridge knows no task %s" % task)
