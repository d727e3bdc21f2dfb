"""ShadowHandSwingCup: turn a mug by half a turn about the vertical.

reward  -F_R - F_L + [F_R and F_L < {near:g}] (5 / (theta + {rotation_eps:g}) - 1)
where   F: the summed distances of a hand's five fingertips to its handle; theta: the angle between the mug and
        its goal
ends    the mug at or below {drop_height:g} m
solved  theta < {success_angle:g} rad
differs the mug starts at rest on the table, not 8.4 cm inside it; friction 0.5 is on all of it, published on one of
        its shapes
"""

import math
from dataclasses import dataclass

import torch

from dima_isaac.envs.task import Outcome
from dima_isaac.sim.engine import Engine
from dima_isaac.sim.rotations import angle_between, from_rpy
from dima_isaac.tasks.bidexhands.hands.config import TwoHandConfig
from dima_isaac.tasks.bidexhands.hands.handles import HandleTask, both, sum_of
from dima_isaac.tasks.bidexhands.hands.placement import palms_facing
from dima_isaac.tasks.bidexhands.hands.props import authored, table

GOAL_YAW = 1.5 * math.pi  # half a turn from the start


@dataclass
class ShadowHandSwingCupConfig(TwoHandConfig):
    rotation_scale: float = 5.0
    rotation_eps: float = 0.1
    near: float = 0.4
    drop_height: float = 0.3
    success_angle: float = 0.785


class ShadowHandSwingCup(HandleTask):
    """Turn a mug: 2 agents x 26 actions, state 417."""

    Config = ShadowHandSwingCupConfig
    cfg: ShadowHandSwingCupConfig
    hands = palms_facing(0.8, x=0.35, self_collision=True)
    props = (authored("mug", "mug", (0.0, 0.0, 0.684), (0.0, 0.0, 1.57), friction=0.5), table((0.3, 0.3, 0.6)))
    places = (("mug", (0.062, 0.0, 0.0)), ("mug", (-0.06, 0.0, 0.0)))

    def bind(self, engine: Engine) -> None:
        super().bind(engine)
        self._goal = torch.tensor(from_rpy(0.0, 0.0, GOAL_YAW), device=engine.device).expand(engine.num_envs, -1)

    def compute_reward(self, engine: Engine) -> Outcome:
        cfg = self.cfg
        mug = self.root("mug")
        reach = self.reach(self.points())
        theta = angle_between(mug[:, 3:7], self._goal)
        near = (reach < cfg.near).all(1)
        turn = cfg.rotation_scale / (theta + cfg.rotation_eps) - 1.0
        terms = {**both("reach", -reach), "turn": torch.where(near, turn, 0.0)}
        return sum_of(terms, mug[:, 2] <= cfg.drop_height, theta < cfg.success_angle)
