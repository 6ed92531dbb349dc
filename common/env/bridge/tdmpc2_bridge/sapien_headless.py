"""ManiSkill2 in state mode without a graphics card.

SAPIEN 2.2's renderer wants a Vulkan device. Physics needs none: what asks for a renderer is the ground,
materials, visuals, lights and cameras. Here they draw nothing. Import before mani_skill2.envs is used.
"""
from collections import OrderedDict

import sapien.core as sapien


class Nothing:
    """Stands for anything of a renderer: any method takes anything and gives this."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *_args, **_kwargs):
        return self


def nothing(_self, *_args, **_kwargs):
    return None


def install():
    real_engine, real_ground = sapien.Engine, sapien.Scene.add_ground

    class Engine:
        """The real one without its renderer."""

        def __init__(self, *args, **kwargs):
            self._engine = real_engine(*args, **kwargs)

        def set_renderer(self, _renderer):
            pass

        def __getattr__(self, name):
            return getattr(self._engine, name)

    def add_ground(self, altitude, render=True, material=None, render_material=None, render_half_size=None):
        return real_ground(self, altitude, False, material)

    sapien.Engine = Engine
    sapien.SapienRenderer = lambda *_args, **_kwargs: Nothing()
    sapien.Scene.add_ground = add_ground
    for name in dir(sapien.Scene):
        if ("light" in name and not name.startswith("get")) or "environment_map" in name or name == "update_render":
            setattr(sapien.Scene, name, nothing)
    for builder in (sapien.ActorBuilder, sapien.LinkBuilder):
        for name in dir(builder):
            if name.startswith("add_") and "visual" in name:
                setattr(builder, name, nothing)

    from mani_skill2.envs.sapien_env import BaseEnv

    def no_cameras(self):
        self._cameras, self._render_cameras = OrderedDict(), OrderedDict()

    BaseEnv._setup_cameras = no_cameras
