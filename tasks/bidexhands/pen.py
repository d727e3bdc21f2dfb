"""ShadowHandPen: pull the cap off a pen.

reward  exp(-10 F_R) + exp(-10 F_L) + [F_R and F_L < {near:g}] (5 D - 0.8)
where   F: the summed distances of a hand's five fingertips to its point, on the cap (right) and on the barrel
        (left); D: the distance between the points
ends    F_R or F_L >= {far:g} m
solved  5 D > {success_pull:g}, the cap is 13 cm out
differs the cap's published limits of 1 on speed and force are not kept: no engine here has them
"""

from dataclasses import dataclass

import torch

from dima_isaac.envs.task import Outcome
from dima_isaac.sim.engine import Engine
from dima_isaac.tasks.bidexhands.hands.config import TwoHandConfig
from dima_isaac.tasks.bidexhands.hands.handles import HandleTask, both, distance, sum_of
from dima_isaac.tasks.bidexhands.hands.placement import palms_down
from dima_isaac.tasks.bidexhands.hands.props import authored, table


@dataclass
class ShadowHandPenConfig(TwoHandConfig):
    near: float = 0.75
    far: float = 1.5
    success_pull: float = 1.5


class ShadowHandPen(HandleTask):
    """Open a pen: 2 agents x 26 actions, state 417."""

    Config = ShadowHandPenConfig
    cfg: ShadowHandPenConfig
    hands = palms_down(self_collision=True)
    props = (authored("pen", "pen", (0.0, 0.0, 0.6115), (1.57, 1.57, 0.0)), table((0.5, 1.0, 0.6)))
    places = (("pen/cap", (0.0, 0.0, -0.1)), ("pen", (0.0, 0.0, 0.07)))

    def compute_reward(self, engine: Engine) -> Outcome:
        points = self.points()
        reach = self.reach(points)
        pull = 5.0 * distance(points[:, 0], points[:, 1])
        near = (reach < self.cfg.near).all(1)
        terms = {**both("reach", torch.exp(-10.0 * reach)), "pull": torch.where(near, pull - 0.8, 0.0)}
        return sum_of(terms, (reach >= self.cfg.far).any(1), pull > self.cfg.success_pull)
