"""A two-handed task whose views are set by hand, so that an outcome can be computed by hand.

Poses are written into the engine's views and nothing is simulated. Every pose has the identity orientation unless it
says otherwise, so that a point of a link is the link's origin plus the point's offset.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from dima_isaac import make
from dima_isaac.envs.task import Outcome
from dima_isaac.envs.vec_env import VecEnv

TIPS = ("ffdistal", "mfdistal", "rfdistal", "lfdistal", "thdistal")
Vec3 = tuple[float, float, float]


@lru_cache(maxsize=64)
def env_of(task: str, profile: str = "fixed") -> VecEnv:
    """One environment of ``task``, shared by all tests: reset it before use."""
    return make(task, num_envs=1, engine="mujoco", seed=0, device="cpu", profile=profile)


class Stage:
    """The views of one environment, and short words to set them."""

    def __init__(self, task: str, profile: str = "fixed") -> None:
        self.env = env_of(task, profile)
        self.env.reset()
        self.task, self.engine = self.env.task, self.env.engine

    def put(self, name: str, pos: Vec3, quat: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 1.0)) -> Stage:
        """Pose an actor's root, a link, or what is both."""
        pose = torch.tensor([*pos, *quat])
        if name in self.engine.actor_names:
            self.engine.root_state[0, self.engine.actor_names.index(name), :7] = pose
        if name in self.engine.link_names:
            self.engine.body_state[0, self.engine.link_names.index(name), :7] = pose
        return self

    def turned(self, name: str, pos: Vec3, angle: float) -> Stage:
        """Pose something turned by ``angle`` about z."""
        return self.put(name, pos, (0.0, 0.0, math.sin(angle / 2), math.cos(angle / 2)))

    def joint(self, name: str, angle: float) -> Stage:
        """Set one degree of freedom."""
        self.engine.dof_pos[0, self.engine.dof_names.index(name)] = angle
        return self

    def tips(self, side: int, point: Vec3, total: float) -> Stage:
        """Put all five fingertip points of a hand at ``total`` / 5 from ``point``: F is ``total``."""
        x, y, z = point
        for tip in TIPS:
            self.put(f"hand{side}/{tip}", (x + total / 5, y, z - 0.02))
        return self

    def palm(self, side: int, centre: Vec3) -> Stage:
        """Put a palm's centre."""
        x, y, z = centre
        return self.put(f"hand{side}/palm", (x, y + 0.02, z - 0.08))

    def compute_reward(self) -> Outcome:
        """Reward and flags of these poses."""
        return self.task.compute_reward(self.engine)

    def reward(self) -> float:
        return float(self.compute_reward().reward)

    def success(self) -> bool:
        return bool(self.compute_reward().success)

    def ends(self) -> bool:
        return bool(self.compute_reward().terminal)


def everyone(env: VecEnv) -> Tensor:
    """The mask of all environments."""
    return torch.ones(env.num_envs, dtype=torch.bool)
