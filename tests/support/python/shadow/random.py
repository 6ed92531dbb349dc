"""An environment in a file with the name of a module that it needs itself."""
import random


class Box:
    low, high, shape = -1.0, 1.0, (2,)


class Shadow:
    observation_space = action_space = Box
    max_episode_steps = 4

    def reset(self, seed=None, options=None):
        self.random = random.Random(seed)
        return [self.random.random(), 0], {}

    def step(self, action):
        return [self.random.random(), 1], 1.0, False, False, {}
