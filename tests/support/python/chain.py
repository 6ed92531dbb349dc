"""A chain of six states with known values, plain and as vector environments in every autoreset mode.

From state k to k + 1 whatever the action, reward 1; the step from 4 to 5 is worth 2 and terminates. Every
second episode is truncated in state 3: its values must be those of episodes that go on.
"""
STATES = 6


class Box:
    def __init__(self, low, high, shape):
        self.low, self.high, self.shape = low, high, shape


class Plain:
    observation_space = Box(0.0, 1.0, (STATES,))
    action_space = Box(-1.0, 1.0, (1,))
    max_episode_steps = 20

    def __init__(self):
        self.state, self.episode, self.over = 0, -1, True

    def observe(self):
        return [1.0 if i == self.state else 0.0 for i in range(STATES)]

    def reset(self, seed=None, options=None):
        self.state, self.over = 0, False
        self.episode += 1
        return self.observe(), {}

    def step(self, action):
        assert not self.over, "a step after the end"
        self.state += 1
        terminated = self.state == STATES - 1
        truncated = self.state == 3 and self.episode % 2 == 1
        self.over = terminated or truncated
        return self.observe(), 2.0 if terminated else 1.0, terminated, truncated, {"success": terminated}

    def close(self):
        pass


class Vector:
    """Of one, as Gymnasium's vector environments behave."""
    num_envs = 1
    single_observation_space, single_action_space = Plain.observation_space, Plain.action_space
    max_episode_steps = Plain.max_episode_steps
    mode = None

    def __init__(self):
        self.one = Plain()
        self.metadata = {"autoreset_mode": self.mode}
        self.begun = False  # an episode has begun by itself, or will at the next step

    def reset(self, seed=None, options=None):
        assert not self.begun, "reset was called although it resets itself"
        return [self.one.reset(seed)[0]], {}

    def one_step(self, actions):
        assert len(actions) == 1 and len(actions[0]) == 1
        result = self.one.step(actions[0])
        self.begun = self.one.over and self.mode != "Disabled"
        return result

    def close(self):
        pass


class Disabled(Vector):
    mode = "Disabled"

    def step(self, actions):
        obs, reward, terminated, truncated, info = self.one_step(actions)
        return [obs], [reward], [terminated], [truncated], info


class NextStep(Vector):
    mode = "NextStep"

    def step(self, actions):
        if self.one.over:
            self.begun = False
            return [self.one.reset()[0]], [0.0], [False], [False], {}
        obs, reward, terminated, truncated, info = self.one_step(actions)
        return [obs], [reward], [terminated], [truncated], info


class SameStep(Vector):
    mode = "SameStep"

    def step(self, actions):
        obs, reward, terminated, truncated, info = self.one_step(actions)
        if terminated or truncated:
            info = {"final_obs": [obs], "_final_obs": [True], "final_info": {"success": [info["success"]]}}
            obs = self.one.reset()[0]
        return [obs], [reward], [terminated], [truncated], info
