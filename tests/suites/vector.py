"""Gymnasium's own vector environments of one, in every autoreset mode, and a dictionary of observations."""
import gymnasium as gym
import numpy as np


class Chain(gym.Env):
    """Six states in a row; every second episode is truncated in the third."""
    observation_space = gym.spaces.Box(0.0, 1.0, (6,), np.float32)
    action_space = gym.spaces.Box(-2.0, 2.0, (1,), np.float32)

    def __init__(self):
        self.state, self.episode = 0, -1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state = 0
        self.episode += 1
        return np.eye(6, dtype=np.float32)[0], {}

    def step(self, action):
        assert action in self.action_space
        self.state += 1
        terminated, truncated = self.state == 5, self.state == 3 and self.episode % 2 == 1
        return np.eye(6, dtype=np.float32)[self.state], 1.0, terminated, truncated, {"success": terminated}


gym.register("Chain-v0", Chain, max_episode_steps=20)


def Plain():
    return gym.make("Chain-v0")


def vector(mode):
    return gym.make_vec("Chain-v0", num_envs=1, vectorization_mode="sync", vector_kwargs={"autoreset_mode": mode})


def Disabled():
    return vector(gym.vector.AutoresetMode.DISABLED)


def NextStep():
    return vector(gym.vector.AutoresetMode.NEXT_STEP)


def SameStep():
    return vector(gym.vector.AutoresetMode.SAME_STEP)


class Dictionary(Chain):
    observation_space = gym.spaces.Dict(
        {"place": gym.spaces.Box(-1, 1, (2,), np.float64), "kind": gym.spaces.Discrete(3)})

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return {"place": np.zeros(2), "kind": 1}, {}

    def step(self, action):
        _, reward, terminated, truncated, info = super().step(action)
        return {"place": np.ones(2), "kind": 2}, reward, terminated, truncated, info
