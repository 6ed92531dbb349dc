"""A Gymnasium environment as the owner wants it: flat float32 in and out, one episode at a time.

Any object with reset, step, observation_space and action_space will do; a space is one of Gymnasium's or
has `shape`, `low` and `high`. NumPy is used where the environment brings it.
"""
import math
import sys
import time
import warnings
from array import array

from . import pictures, wire

DEFAULT_LIMIT = 1000
SIZE_MAX = 1 << 20  # numbers of an observation or an action


class Refused(Exception):
    """An environment that cannot be used; one sentence."""


class Setup(Exception):
    """Something is not installed; one sentence with what to run."""


class Spec:
    obs_dim = action_dim = episode_length = state_size = 0
    action_repeat = 1
    name = ""


def numpy():
    """The module, if the environment has imported it."""
    return sys.modules.get("numpy")


def attribute(env, name):
    """Of the environment, or of what its wrappers wrap; None where nothing has it."""
    with warnings.catch_warnings():  # older wrappers warn of what they hand through
        warnings.simplefilter("ignore")
        look = getattr(env, "get_wrapper_attr", None)
        try:
            return look(name) if callable(look) else getattr(env, name, None)
        except AttributeError:
            return None


def flat(value):
    """The numbers of nested sequences, row by row."""
    if hasattr(value, "__iter__") and not isinstance(value, (str, bytes)):
        out = []
        for part in value:
            out.extend(flat(part))
        return out
    return [float(value)]


def class_name(space):
    return type(space).__name__


def is_box(space):
    return all(hasattr(space, name) for name in ("shape", "low", "high"))


def size_of(space, what):
    size = math.prod(space.shape)
    if not 1 <= size <= SIZE_MAX:
        raise Refused("the %s space has %d numbers; 1 to %d will do" % (what, size, SIZE_MAX))
    return size


class ActionMap:
    """[-1, 1] to the box, affinely; a box that is [-1, 1] takes actions as they are."""

    def __init__(self, space, direct):
        if not is_box(space):
            raise Refused("the action space is %s: TD-MPC2 plans continuous actions, so a Box is needed"
                          % class_name(space))
        self.size = size_of(space, "action")
        self.shape = tuple(space.shape)
        self.low, self.high = self._bounds(space.low), self._bounds(space.high)
        for i, (low, high) in enumerate(zip(self.low, self.high)):
            if not (math.isfinite(low) and math.isfinite(high)):
                raise Refused("component %d of the action box is [%g, %g]: finite bounds are needed, "
                              "gymnasium.wrappers.RescaleAction or ClipAction may help" % (i, low, high))
            if not low < high:
                raise Refused("component %d of the action box is [%g, %g]: low must be below high; leave out what "
                              "does not act" % (i, low, high))
        self.identity = direct or all(b == (-1.0, 1.0) for b in zip(self.low, self.high))
        self.dtype = getattr(space, "dtype", None)
        if getattr(self.dtype, "kind", "f") in "iub":
            raise Refused("the action space is a Box of %s: TD-MPC2 plans continuous actions, so a Box of floats is "
                          "needed" % self.dtype)
        self.np = np = numpy()  # as it was when low, high and half were made
        if np is not None:
            self.base = np.array(self.low)
            self.top = np.array(self.high)
            self.half = (self.top - self.base) / 2

    def _bounds(self, bound):
        values = flat(bound)
        return values * self.size if len(values) == 1 else values

    def __call__(self, data):
        np = self.np
        if np is not None:
            action = np.frombuffer(data, np.float32)
            if not self.identity:
                action = np.minimum(self.base + self.half * (action.astype(np.float64) + 1), self.top)
            return action.astype(self.dtype or np.float32).reshape(self.shape)
        values = array("f")
        values.frombytes(data)
        if self.identity:
            return list(values)
        return [min(low + (high - low) / 2 * (a + 1), high)
                for a, low, high in zip(values, self.low, self.high)]

    def zero(self):
        return self(bytes(4 * self.size))


class ObsMap:
    """An observation's numbers as float32 bytes."""

    def __init__(self, space):
        self.flatten = None
        if is_box(space):
            self.size = size_of(space, "observation")
            return
        spaces = sys.modules.get("gymnasium.spaces")
        try:
            self.size = spaces.flatdim(space)
        except Exception:  # noqa: BLE001  (no Gymnasium, or a space without a fixed size)
            raise Refused("the observation space is %s, which has no flat form: wrap the environment so that "
                          "it observes a Box" % class_name(space)) from None
        if not 1 <= self.size <= SIZE_MAX:
            raise Refused("the observation space flattens to %d numbers; 1 to %d will do" % (self.size, SIZE_MAX))
        self.flatten = lambda obs: spaces.flatten(space, obs)

    def __call__(self, obs):
        if obs is None:
            raise TypeError("the observation is None")
        if self.flatten is not None:
            obs = self.flatten(obs)
        np = numpy()
        if np is not None:
            data = np.asarray(obs)
            if data.dtype.kind not in "fiub":
                raise TypeError("the observation is of type %s, not numbers" % data.dtype)
            if data.size != self.size:
                raise ValueError("the observation has %d numbers, its space %d" % (data.size, self.size))
            with np.errstate(over="ignore"):
                return data.astype(np.float32).tobytes()
        values = flat(obs)
        if len(values) != self.size:
            raise ValueError("the observation has %d numbers, its space %d" % (len(values), self.size))
        return array("f", values).tobytes()


def as_flag(value, name):
    """A truth value; anything but a bool or a 0 or 1 is a mistake worth naming."""
    if value is True or value is False:
        return value
    try:
        found = number(value)
    except (TypeError, ValueError, OverflowError):
        found = -1
    if found not in (0, 1):
        raise TypeError("%s is %.60r, not a truth value" % (name, value))
    return bool(found)


def autoreset_mode(env, vector):
    """What happens to an episode that has ended: "disabled", "nextstep" or "samestep"."""
    mode = (getattr(env, "metadata", None) or {}).get("autoreset_mode")
    if mode is not None:
        mode = str(getattr(mode, "value", mode)).replace("_", "").replace("-", "").lower()
        if mode not in ("disabled", "nextstep", "samestep"):
            raise Refused("metadata['autoreset_mode'] is %s, which Gymnasium does not know" % mode)
        return mode
    version = getattr(sys.modules.get("gymnasium"), "__version__", "1")
    old = version.startswith("0.")
    if vector:
        return "samestep" if old else "nextstep"
    while env is not None:  # a single environment resets itself only in this wrapper
        if class_name(env) in ("Autoreset", "AutoResetWrapper"):
            return "samestep" if old else "nextstep"
        env = env.__dict__.get("env") if hasattr(env, "__dict__") else None
    return "disabled"


def number(value):
    """A number, or an array or a list of one; TypeError for all else, a text that reads like a number too."""
    while not isinstance(value, (str, bytes, dict)) and getattr(value, "shape", (1,)) != () and \
            hasattr(value, "__getitem__"):
        if len(value) != 1:
            raise TypeError("%d values" % len(value))
        value = value[0]
    if value is None or isinstance(value, (str, bytes, dict)):
        raise TypeError("no number")
    return float(value)


def as_reward(value):
    try:
        return number(value)
    except (TypeError, ValueError, OverflowError):
        raise TypeError("the reward is %.60r, not a number" % (value,)) from None


def first(value):
    """Of a vector of one."""
    return value if isinstance(value, (str, bytes, dict)) or not hasattr(value, "__getitem__") else value[0]


class Single:
    """A plain environment."""

    vector = False

    def __init__(self, env):
        self.env = env
        self.observation_space, self.action_space = env.observation_space, env.action_space

    def reset(self, seed):
        result = self.env.reset() if seed is None else self.env.reset(seed=seed)
        if not isinstance(result, tuple) or len(result) != 2 or not isinstance(result[1], dict):
            raise TypeError("reset did not return (observation, info) as Gymnasium's do")
        return result[0]

    def step(self, action):
        result = self.env.step(action)
        if not isinstance(result, tuple) or len(result) != 5:
            raise TypeError("step returned %s, not Gymnasium's (observation, reward, terminated, truncated, info)"
                            % ("%d values" % len(result) if isinstance(result, tuple) else class_name(result)))
        obs, reward, terminated, truncated, info = result
        if not isinstance(info, dict):
            raise TypeError("step's info is %s, not a dict" % class_name(info))
        return obs, as_reward(reward), as_flag(terminated, "terminated"), as_flag(truncated, "truncated"), info

    def final(self, info):
        for key in ("final_obs", "final_observation"):
            if info.get(key) is not None:
                return info[key]
        raise ValueError("the episode ended, and info has no final_obs although the environment resets itself")


class Vector(Single):
    """A vector environment of one."""

    vector = True

    def __init__(self, env):
        if env.num_envs != 1:
            raise Refused("a vector environment of %d: make it with num_envs=1, more actors run more of them"
                          % env.num_envs)
        self.env = env
        self.observation_space, self.action_space = env.single_observation_space, env.single_action_space

    def reset(self, seed):
        return self._first_obs(super().reset(seed))

    def step(self, action):
        np = numpy()
        batch = [action] if np is None else np.asarray(action)[None]
        result = self.env.step(batch)
        if not isinstance(result, tuple) or len(result) != 5:
            raise TypeError("step did not return Gymnasium's five values")
        obs, reward, terminated, truncated, info = result
        return (self._first_obs(obs), as_reward(reward), as_flag(first(terminated), "terminated"),
                as_flag(first(truncated), "truncated"), info)

    def _first_obs(self, obs):
        if isinstance(obs, dict):
            return {key: self._first_obs(value) for key, value in obs.items()}
        if isinstance(obs, tuple):
            return tuple(self._first_obs(value) for value in obs)
        return obs[0]

    def final(self, info):
        obs = super().final(info)
        # Gymnasium keeps an array of observations; a stacked dict or tuple is taken apart
        return self._first_obs(obs) if isinstance(obs, (dict, tuple)) else obs[0]


def say_once(text, said=set()):  # noqa: B006  (one set for the process is meant)
    if text not in said:
        said.add(text)
        print("bridge: %s" % text, file=sys.stderr)


def find_success(info, vector):
    """The environment's own notion: True, False or None where it has none, or nothing that is a number."""
    final = info.get("final_info")
    for where in (info, first(final) if vector and final is not None else final):
        if not isinstance(where, dict):
            continue
        for key in ("success", "is_success"):
            value = where.get(key)
            if value is None:
                continue
            try:
                return number(value) > 0.5
            except (TypeError, ValueError, OverflowError):
                say_once("info['%s'] is of type %s, no truth value: passed over" % (key, class_name(value)))
    return None


class Adapter:
    """What the owner talks to. `plan` says how the environment is wrapped: see suites.Plan."""

    def __init__(self, plan, seed=0, picture=None):
        env = plan.env
        for name in ("reset", "step"):
            if not callable(getattr(env, name, None)):
                raise Refused("%s has no method %s: a Gymnasium environment is needed" % (class_name(env), name))
        vector = attribute(env, "num_envs") is not None and attribute(env, "single_observation_space") is not None
        for name in ("single_observation_space" if vector else "observation_space",
                     "single_action_space" if vector else "action_space"):
            if getattr(env, name, None) is None:
                raise Refused("%s has no %s" % (class_name(env), name))
        self.plan = plan
        self.mode = autoreset_mode(env, vector)
        self.one = Vector(env) if vector else Single(env)
        self.to_obs = ObsMap(self.one.observation_space)
        self.to_action = ActionMap(self.one.action_space, plan.direct)
        self.next_obs = None   # SAME_STEP: the episode that has begun already
        self.ended = False     # NEXT_STEP: the next step is the reset
        self.total = 0.0       # return of the episode so far
        self.begun = False     # there was a reset
        self.spec = self._spec(plan, env)
        self.picture = picture  # (width, height): observations are pictures; None: numbers
        if picture:
            self._try_rendering(seed)

    def _try_rendering(self, seed):
        """Before anything depends on it: does the environment draw? The first reset seeds it again."""
        mode = getattr(self.plan.env, "render_mode", "rgb_array")
        if not callable(getattr(self.plan.env, "render", None)):
            raise Refused("obs=rgb needs an environment that renders: %s has no method render"
                          % class_name(self.plan.env))
        if mode != "rgb_array":
            raise Refused("obs=rgb needs an environment that renders: its render_mode is %s, not 'rgb_array'" % mode)
        self.one.reset(seed if self.plan.seeds_reset else None)
        try:
            self.render(*self.picture)
        except Exception as error:  # noqa: BLE001  (whatever a user's code may raise)
            raise Refused("obs=rgb needs an environment that renders, and render() failed: %s: %s"
                          % (type(error).__name__, str(error).replace("\n", " "))) from error

    def observe(self, obs):
        """What the owner sees of it."""
        return self.render(*self.picture) if self.picture else self.to_obs(obs)

    def _spec(self, plan, env):
        spec = Spec()
        spec.obs_dim, spec.action_dim = self.to_obs.size, self.to_action.size
        spec.episode_length = self._limit(plan, env)
        spec.action_repeat = plan.repeat
        spec.name = plan.name or class_name(env)
        state = [attribute(env, name) for name in ("state_size", "get_state", "set_state")]
        if self.mode == "disabled" and all(part is not None for part in state):
            try:
                spec.state_size = int(state[0])
            except (TypeError, ValueError, OverflowError):
                raise Refused("state_size is %.60r, not a number of bytes" % (state[0],)) from None
            if not 0 <= spec.state_size <= wire.BULK_MAX // 2:
                raise Refused("state_size is %d" % spec.state_size)
            self.get_state, self.set_state = state[1:]
        return spec

    def _limit(self, plan, env):
        limit = plan.limit or getattr(getattr(env, "spec", None), "max_episode_steps", None) or \
            attribute(env, "max_episode_steps") or DEFAULT_LIMIT
        try:
            steps = int(limit)
        except (TypeError, ValueError, OverflowError):
            steps = 0
        if steps != limit or not 1 <= steps <= 10 ** 9:
            raise Refused("max_episode_steps is %.60r, not a number of steps from 1 to 10^9" % (limit,))
        return steps

    def reset(self, seed):
        self.total, self.begun = 0.0, True
        if self.next_obs is not None and seed is None:
            obs, self.next_obs, self.ended = self.next_obs, None, False
        elif self.mode == "nextstep" and self.ended and seed is None:
            self.ended = False
            obs, _, terminated, truncated, _ = self.one.step(self.to_action.zero())
            if terminated or truncated:
                raise ValueError("the step that resets ended an episode")
        else:
            self.next_obs, self.ended = None, False
            obs = self.one.reset(seed if self.plan.seeds_reset else None)
        if self.plan.after_reset is not None:
            obs = self.plan.after_reset(self.plan.env, obs)
        return self.observe(obs)

    def step(self, data):
        """One agent step: (observation, reward, flags, nanoseconds in the environment)."""
        if len(data) != 4 * self.to_action.size:
            raise wire.Corrupt("an action of %d bytes" % len(data))
        plan, total, spent = self.plan, 0.0, 0
        for _ in range(plan.repeat):
            action = self.to_action(data)
            begun = time.perf_counter_ns()
            obs, reward, terminated, truncated, info = self.one.step(action)
            spent += time.perf_counter_ns() - begun
            total += reward
            if plan.never_ends:
                terminated = truncated = False
            if terminated or truncated:
                obs = self._end(obs, info)
                break
        self.total += total
        return self.observe(obs), total, self._flags(terminated, truncated, info), spent

    def _end(self, obs, info):
        """The episode's last observation; what a self-resetting environment began is kept for later."""
        if self.mode == "samestep":
            self.next_obs, obs = obs, self.one.final(info)
        self.ended = True
        return obs

    def _flags(self, terminated, truncated, info):
        success = self.plan.success(info, self.total) if self.plan.success is not None else find_success(info, self.one.vector)
        flags = wire.TERMINATED if terminated else wire.TRUNCATED if truncated else 0
        if success is not None:
            flags |= wire.HAS_SUCCESS | (wire.SUCCESS if success else 0)
        return flags

    def state_get(self):
        state = self.get_state()
        try:
            state = bytes(memoryview(state))
        except TypeError:
            raise TypeError("get_state returned %s, not bytes" % class_name(state)) from None
        if len(state) != self.spec.state_size:
            raise ValueError("get_state gave %d bytes, state_size is %d" % (len(state), self.spec.state_size))
        return state

    def state_set(self, state):
        # many make their fields in reset, and wrappers count from there
        if not self.begun or getattr(self.plan.env, "unwrapped", self.plan.env) is not self.plan.env:
            self.one.reset(None)
            self.begun = True
        self.set_state(state)
        return b""

    def render(self, width, height):
        frame = self.plan.env.render()
        if frame is None:
            raise Refused("render() returned nothing (render_mode='rgb_array' is needed)")
        return pictures.resized(first(frame) if self.one.vector else frame, width, height)

    def close(self):
        try:
            self.plan.env.close()
        except Exception:  # noqa: BLE001  (the process ends anyway)
            pass
