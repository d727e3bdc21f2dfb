"""ShadowHandScissors: open a pair of scissors.

reward  2 - F_R - F_L + u, u = [F_R and F_L < {near:g}] 5 (0.59 + q)
where   F: the summed distances of a hand's five fingertips to its ring; q: the pivot's angle, -0.59 when shut
ends    u < {least_opening:g}, or F_R or F_L >= {far:g} m
solved  q > {success_angle:g} rad
"""

from dataclasses import dataclass

import torch

from dima_isaac.envs.task import Outcome
from dima_isaac.sim.engine import Engine, names_to_index
from dima_isaac.tasks.bidexhands.hands.config import TwoHandConfig
from dima_isaac.tasks.bidexhands.hands.handles import HandleTask, both, sum_of
from dima_isaac.tasks.bidexhands.hands.placement import palms_down
from dima_isaac.tasks.bidexhands.hands.props import authored, table

SHUT = 0.59  # rad below zero


@dataclass
class ShadowHandScissorsConfig(TwoHandConfig):
    near: float = 0.7
    far: float = 1.75
    least_opening: float = -0.5
    success_angle: float = -0.3


class ShadowHandScissors(HandleTask):
    """Open scissors: 2 agents x 26 actions, state 417."""

    Config = ShadowHandScissorsConfig
    cfg: ShadowHandScissorsConfig
    hands = palms_down(self_collision=True)
    props = (
        authored("scissors", "scissors", (0.0, 0.0, 0.6062), (0.0, 0.0, 1.57), joints={"pivot": -SHUT}),
        table((0.5, 1.0, 0.6)),
    )
    places = (("scissors/blade", (0.1, -0.2, 0.0)), ("scissors", (-0.1, -0.15, 0.0)))

    def bind(self, engine: Engine) -> None:
        super().bind(engine)
        self._pivot = int(names_to_index(engine.dof_names, ["scissors/pivot"])[0])

    def compute_reward(self, engine: Engine) -> Outcome:
        reach = self.reach(self.points())
        angle = engine.dof_pos[:, self._pivot]
        near = (reach < self.cfg.near).all(1)
        opening = torch.where(near, 5.0 * (SHUT + angle), 0.0)
        terminal = (opening < self.cfg.least_opening) | (reach >= self.cfg.far).any(1)
        return sum_of({**both("reach", 1.0 - reach), "open": opening}, terminal, angle > self.cfg.success_angle)
