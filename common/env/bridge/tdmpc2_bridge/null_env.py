"""An environment that does nothing, to measure what the bridge costs: `tdmpc2 bench bridge`."""


class Box:
    def __init__(self, size):
        self.low, self.high, self.shape = -1.0, 1.0, (size,)


class Null:
    """24 numbers in, 6 out, as plain lists."""

    observation_space, action_space = Box(24), Box(6)
    max_episode_steps = 1000

    def __init__(self):
        self.obs = [0.5] * 24

    def reset(self, seed=None, options=None):
        return self.obs, {}

    def step(self, action):
        return self.obs, 1.0, False, False, {}

    def close(self):
        pass


class NullArrays(Null):
    """The same as NumPy's arrays, as Gymnasium's environments have them."""

    def __init__(self):
        import numpy
        self.obs = numpy.full(24, 0.5)
