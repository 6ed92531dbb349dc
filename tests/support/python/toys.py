"""Environments for tests of the bridge: plain Python, no package needed.

Good            a point in the plane that saves its state
Sleep ... Thread  the same, but the fifth step of an episode goes wrong
"""
import array
import ctypes
import os
import random
import signal
import struct
import sys
import threading
import time


class Box:
    def __init__(self, low, high, shape):
        self.low, self.high, self.shape = low, high, shape


class Good:
    observation_space = Box(-10.0, 10.0, (3,))
    action_space = Box([-2.0, 0.0], [2.0, 1.0], (2,))
    max_episode_steps = 20
    state_size = 2 * 8 + 4 * 626 + 8

    def __init__(self):
        self.random = random.Random(0)
        self.place, self.t = [0.0, 0.0], 0

    def observe(self):
        return [self.place[0], self.place[1], self.t / 20]

    def reset(self, seed=None, options=None):
        if seed is not None:
            self.random = random.Random(seed)
        self.place, self.t = [self.random.uniform(-1, 1), self.random.uniform(-1, 1)], 0
        return self.observe(), {}

    def step(self, action):
        assert -2 <= action[0] <= 2 and 0 <= action[1] <= 1, action
        self.t += 1
        self.place = [0.9 * self.place[0] + 0.1 * action[0], 0.9 * self.place[1] + 0.1 * action[1]]
        return self.observe(), 1 - abs(self.place[0]), False, False, {"success": abs(self.place[0]) < 0.1}

    def get_state(self):
        _, words, _ = self.random.getstate()
        return struct.pack("<dd625IIQ", *self.place, *words, 0, self.t)

    def set_state(self, state):
        values = struct.unpack("<dd625IIQ", state)
        self.place, self.t = list(values[:2]), values[-1]
        self.random.setstate((3, tuple(values[2:627]), None))

    def close(self):
        pass


class Faulty(Good):
    """Goes wrong at step 5 of its first episode in each process."""
    at = 5

    def step(self, action):
        result = super().step(action)
        return self.fault(*result) if self.t == self.at else result


class Sleep(Faulty):
    def fault(self, *result):
        time.sleep(1000)


class HoldsGil(Faulty):
    """Hangs in C without letting any other Python thread run."""

    def fault(self, *result):
        ctypes.PyDLL(None).sleep(1000)


class Exit(Faulty):
    def fault(self, *result):
        print("going away")
        os._exit(7)


class Abort(Faulty):
    def fault(self, *result):
        os.abort()


class Raise(Faulty):
    def fault(self, *result):
        raise RuntimeError("the robot fell\nover")


class NanObs(Faulty):
    def fault(self, obs, reward, *rest):
        return ([obs[0], float("nan"), obs[2]], reward) + rest


class InfReward(Faulty):
    def fault(self, obs, reward, *rest):
        return (obs, float("inf")) + rest


class BadShape(Faulty):
    def fault(self, obs, *rest):
        return (obs[:2],) + rest


class BadType(Faulty):
    def fault(self, obs, *rest):
        return (["a", "b", "c"],) + rest


class BadReward(Faulty):
    def fault(self, obs, reward, *rest):
        return (obs, None) + rest


class BadFlag(Faulty):
    def fault(self, obs, reward, terminated, truncated, info):
        return obs, reward, "no", truncated, info


class FourValues(Faulty):
    def fault(self, obs, reward, terminated, truncated, info):
        return obs, reward, terminated, info


class Garbage(Faulty):
    """Writes to the bridge's own socket."""

    def fault(self, *result):
        os.write(3, b"not a message, for certain not one\n" * 20)
        return result


class WrongMessage(Faulty):
    """Writes what ZeroMQ takes for a message."""

    def fault(self, *result):
        os.write(3, bytes((0, 60)) + b"x" * 60)
        return result


class HalfMessage(Faulty):
    def fault(self, *result):
        os.write(3, bytes((0, 60)) + b"x" * 20)
        time.sleep(1000)


class ClosesSocket(Faulty):
    def fault(self, *result):
        os.close(3)
        return result


class Prints(Good):
    """Prints a lot, through Python and below it; that is no fault."""

    def step(self, action):
        print("step", self.t, flush=True)
        os.write(1, b"\x01binary\xff\n" + b"long " * 3000 + b"\n")
        sys.stderr.write('with "quotes"\n')
        return super().step(action)


class Children(Exit):
    """Starts a process of its own that would outlive it."""

    def reset(self, seed=None, options=None):
        if not hasattr(self, "child"):
            self.child = os.posix_spawn("/bin/sleep", ["sleep", os.environ.get("TOY_SLEEP", "1000")], os.environ)
        return super().reset(seed)


class Leaves(Good):
    """Starts processes that would outlive it: of another program, and a copy of itself."""

    def __init__(self):
        super().__init__()
        word = os.environ.get("TOY_SLEEP", "1000")
        os.posix_spawn("/bin/sleep", ["sleep", word], os.environ)
        if os.fork() == 0:
            time.sleep(1000)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


class SlowClose(Good):
    def close(self):
        time.sleep(1000)


class Thread(Good):
    """Leaves a thread behind that is no daemon."""

    def __init__(self):
        super().__init__()
        threading.Thread(target=time.sleep, args=(1000,)).start()


class Scalar:
    """As NumPy's scalars and arrays without dimensions are: they look like arrays and cannot be indexed."""
    shape = ()

    def __init__(self, value):
        self.value = value

    def __getitem__(self, index):
        raise IndexError("invalid index to scalar variable.")

    def __float__(self):
        return float(self.value)


class Scalars(Good):
    """Rewards, flags and success as environments in NumPy give them."""

    def step(self, action):
        obs, reward, terminated, truncated, info = super().step(action)
        return obs, Scalar(reward), Scalar(terminated), [truncated], {"success": Scalar(info["success"])}


class OddSuccess(Good):
    """Success that is none: passed over."""
    kinds = ("yes", [], {"a": 1}, None, [1, 2], object(), float("nan"), b"1")

    def step(self, action):
        obs, reward, terminated, truncated, _ = super().step(action)
        return obs, reward, terminated, truncated, {"success": self.kinds[self.t % len(self.kinds)]}


class TextReward(Faulty):
    def fault(self, obs, reward, *rest):
        return (obs, "1.0") + rest


class HugeReward(Faulty):
    def fault(self, obs, reward, *rest):
        return (obs, 1e300) + rest


class LateFields(Good):
    """Makes what it consists of in reset."""

    def __init__(self):
        pass

    def reset(self, seed=None, options=None):
        if not hasattr(self, "random"):
            self.random = random.Random(0)
        return super().reset(seed)


class Wrapped:
    """As Gymnasium's wrappers are: of what is inside only spaces, reset and step are seen."""
    observation_space, action_space = Good.observation_space, Good.action_space

    def __init__(self):
        self.env, self.steps = LateFields(), None
        self.unwrapped = self.env

    def get_wrapper_attr(self, name):
        return getattr(self, name) if name in dir(self) else getattr(self.env, name)

    def reset(self, seed=None, options=None):
        self.steps = 0
        return self.env.reset(seed=seed)

    def step(self, action):
        if self.steps is None:
            raise AssertionError("reset first")
        self.steps += 1
        obs, reward, terminated, truncated, info = self.env.step(action)
        return obs, reward, terminated, truncated or self.steps >= 20, info


class BadState(Good):
    def get_state(self):
        raise KeyError('no "state" today')


class TextState(Good):
    def get_state(self):
        return "state"


class Integers(Good):
    class Kind:
        kind = "i"

        def __str__(self):
            return "int32"

    action_space = Box(0, 5, (2,))
    action_space.dtype = Kind()


class OnePoint(Good):
    action_space = Box([-1.0, 1.0], [1.0, 1.0], (2,))


class EndlessLimit(Good):
    max_episode_steps = float("inf")


class TextLimit(Good):
    max_episode_steps = "x"


class Colours(Exit):
    """Dies with words in colour and in quotes."""

    def fault(self, *result):
        print('\x1b[31;1mthe "motor"\x1b[0m is hot')
        os._exit(9)


class BadReset(Good):
    def reset(self, seed=None, options=None):
        return self.observe()


class FailsToStart(Good):
    def __init__(self):
        raise OSError("no robot is connected")


class Discrete:
    observation_space = Good.observation_space
    n = 4

    def __init__(self):
        self.action_space = self

    reset = step = close = lambda self, *args, **kwargs: None


class Unbounded(Good):
    action_space = Box(-float("inf"), float("inf"), (2,))


class OldMethods:
    observation_space, action_space = Good.observation_space, Good.action_space
    reset = Good.reset


class Ends(Good):
    """Terminates at step 3 of the first episode, truncates at step 4 of the second, and so on."""
    state_size = 0

    def __init__(self):
        super().__init__()
        self.episode = 0

    def reset(self, seed=None, options=None):
        self.episode += 1
        return super().reset(seed)

    def step(self, action):
        obs, reward, _, _, info = super().step(action)
        odd = self.episode % 2 == 1
        return obs, reward, odd and self.t == 3, not odd and self.t == 4, info


class Flaky(Good):
    """Plays two episodes, then is gone, hangs or returns nonsense, by turns from process to process."""

    def __init__(self):
        super().__init__()
        self.episode = 0

    def reset(self, seed=None, options=None):
        self.episode += 1
        return super().reset(seed)

    def step(self, action):
        obs, reward, terminated, truncated, info = super().step(action)
        if self.episode == 3 and self.t == 5:
            kind = os.getpid() % 3
            if kind == 0:
                os._exit(3)
            if kind == 1:
                time.sleep(1000)
            obs[0] = float("nan")
        return obs, reward, terminated, truncated, info


class Slow(Good):
    """A step takes 20 ms, most of them asleep."""

    def step(self, action):
        time.sleep(0.02)
        return super().step(action)


class HangsOnce(Good):
    """One process of all hangs after five steps: the first to come there while $TOY_HANG is no file."""

    def step(self, action):
        time.sleep(0.002)
        if self.t == 5:
            try:
                os.close(os.open(os.environ["TOY_HANG"], os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                pass
            else:
                time.sleep(1000)
        return super().step(action)


class Jitter(Good):
    """Now and then a step or reset takes long; what it leads to is that of the seed."""

    def step(self, action):
        time.sleep(0.001 * ord(os.urandom(1)) ** 4 / 2e8)  # up to 21 ms, mostly next to nothing
        return super().step(action)

    def reset(self, seed=None, options=None):
        time.sleep(0.02 * (ord(os.urandom(1)) % 2))
        return super().reset(seed)


class Paints(Good):
    """Draws 128 x 96: red grows to the right, green downwards, blue with every step."""

    def render(self):
        return [[(2 * x, 2 * y, 10 * self.t) for x in range(128)] for y in range(96)]


class PaintsArrays(Paints):
    """The same as one of NumPy's arrays, with a fourth channel."""

    def __init__(self):
        super().__init__()
        import numpy
        self.numpy = numpy

    def render(self):
        np = self.numpy
        frame = np.full((96, 128, 4), 10 * self.t, np.uint8)
        frame[:, :, 0] = 2 * np.arange(128)
        frame[:, :, 1] = 2 * np.arange(96)[:, None]
        return frame


class PaintsSmall(Good):
    """Draws 32 x 64, only when made for it."""

    def __init__(self, render_mode=None):
        super().__init__()
        self.render_mode = render_mode

    def render(self):
        return [[(x, y, 255) for x in range(32)] for y in range(64)] if self.render_mode == "rgb_array" else None


class PaintsNothing(Good):
    def render(self):
        return None


class PaintsWindow(Paints):
    render_mode = "human"


class PaintsFlat(Good):
    def render(self):
        return [[1, 2, 3]] * 64


class PaintsBright(Good):
    def render(self):
        return [[(300, 0, 0)] * 64] * 64


class PaintsRagged(Good):
    def render(self):
        return [[(0, 0, 0)] * 64] * 63 + [[(0, 0, 0)] * 63]


class StopsPainting(Paints):
    def render(self):
        return None if self.t == 5 else super().render()
