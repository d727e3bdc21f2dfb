"""ShadowHandOver: one hand throws an egg to the other. Both bases are fixed.

    reward  exp(-0.2 (50 d + theta))    d, theta: distance and angle between the egg and its goal
    ends    when the egg is at or below 0.2 m
    solved  when d < 0.03 m

The published bonus for d <= 0 can never be paid and does not exist here, in either profile.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dima_isaac.envs.task import Outcome
from dima_isaac.sim.engine import Engine
from dima_isaac.sim.rotations import angle_between, length, quat_div
from dima_isaac.sim.scene import Actor, Ellipsoid
from dima_isaac.tasks.bidexhands.hands.config import TwoHandConfig
from dima_isaac.tasks.bidexhands.hands.placement import Hands
from dima_isaac.tasks.bidexhands.hands.starts import Prop
from dima_isaac.tasks.bidexhands.hands.two_hands import TwoHandTask

EGG = (0.03, 0.03, 0.04)  # semi-axes, m


@dataclass
class ShadowHandOverConfig(TwoHandConfig):
    """The published numbers."""

    reset_position_noise: float = 0.01
    reset_dof_noise: float = 0.2
    distance_scale: float = 50.0
    drop_height: float = 0.2
    success_distance: float = 0.03


class ShadowHandOver(TwoHandTask):
    """Hand an egg over, 2 agents x 211 observations x 20 actions, state 398."""

    Config = ShadowHandOverConfig

    def __init__(self, cfg: ShadowHandOverConfig) -> None:
        egg = Prop(Actor("egg", Ellipsoid(EGG), pos=(0.0, -0.39, 0.54)), jitter="egg", spin="egg")
        marker = Ellipsoid(EGG, color=(0.25, 0.75, 0.35, 0.35))
        goal = Prop(Actor("goal", marker, pos=(0.0, -0.64, 0.54), marker=True), spin="goal")
        hands = Hands(pos=((0.0, 0.0, 0.5), (0.0, -1.0, 0.5)), free=False)
        super().__init__("ShadowHandOver", cfg, hands, [egg, goal], tail_size=13 + 11)
        self.cfg: ShadowHandOverConfig = cfg

    def bind(self, engine: Engine) -> None:
        """Resolve names, and slice the two poses once."""
        super().bind(engine)
        egg, goal = self.root("egg"), self.root("goal")
        self._egg_pos, self._egg_quat, self._egg_height = egg[:, :3], egg[:, 3:7], egg[:, 2]
        self._goal_pos, self._goal_quat = goal[:, :3], goal[:, 3:7]

    def tail(self, engine: Engine) -> list[Tensor]:
        """The egg's 13 numbers; the goal's pose, and the turn from goal to egg."""
        relative = quat_div(self._egg_quat, self._goal_quat)
        return [self.root("egg"), self.root("goal")[:, :7], relative]

    def describe_tail(self, index: int) -> str:
        """A short name of one number of the egg's and the goal's part."""
        numbers = ("x", "y", "z", "qx", "qy", "qz", "qw", "vx", "vy", "vz", "wx", "wy", "wz")
        names = [f"egg {number}" for number in numbers] + [f"goal {number}" for number in numbers[:7]]
        return [*names, *(f"egg to goal {number}" for number in numbers[3:7])][index]

    def pose(self, engine: Engine, state: Tensor) -> None:
        """Stage hands, egg and goal as ``state`` (E, D) shows them, for pictures of dreams."""
        self.pose_hands(engine, state)
        everyone = torch.ones(engine.num_envs, dtype=torch.bool, device=engine.device)
        for name, start in (("egg", -24), ("goal", -11)):
            pose = state[:, start : start + 7]
            quat = torch.nn.functional.normalize(pose[:, 3:], dim=1)
            root = torch.cat([pose[:, :3], quat, torch.zeros_like(state[:, :6])], 1)
            engine.set_root_state(everyone, self._actor[name], root)

    def compute_reward(self, engine: Engine) -> Outcome:
        """Reward, drops and catches."""
        distance = length(self._egg_pos - self._goal_pos)
        theta = angle_between(self._egg_quat, self._goal_quat)
        reward = torch.add(theta, distance, alpha=self.cfg.distance_scale).mul_(-0.2).exp_()
        return Outcome(
            reward=reward,
            terminal=self._egg_height <= self.cfg.drop_height,
            success=distance < self.cfg.success_distance,
            terms={"throw": reward},
        )
