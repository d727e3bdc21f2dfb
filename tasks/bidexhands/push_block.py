"""ShadowHandPushBlock: each hand pushes a cube to its goal.

reward  (1.2 - F_R) + (1.2 - F_L) + 5 - 5 g_R - 5 g_L
where   F: the summed distances of a hand's five fingertips to its cube; g: the distance of a cube to its goal
ends    F_R or F_L >= {far:g} m
solved  g_R and g_L <= {success_distance:g} m
differs the published reward and success take the left goal for both cubes (own_goals); published success latches
        0.5 for the left cube alone, never upgrades it, and gives 0 for the right one alone, here it takes both,
        in either profile; the cubes start at rest on the table, not 2.5 cm inside it
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from dima_isaac.envs.task import Outcome
from dima_isaac.sim.engine import Engine
from dima_isaac.tasks.bidexhands.hands.config import TwoHandConfig
from dima_isaac.tasks.bidexhands.hands.handles import HandleTask, both, distance, sum_of
from dima_isaac.tasks.bidexhands.hands.placement import palms_down
from dima_isaac.tasks.bidexhands.hands.props import CUBE_RPY, cube, cube_goal, table

GOALS = ((-0.2, 0.2, 0.625), (-0.2, -0.2, 0.625))  # of the right and the left cube
COLORS = ((0.84, 0.32, 0.26, 1.0), (0.25, 0.45, 0.75, 1.0))
PADDING = 5  # zeros that end the published observation


@dataclass
class ShadowHandPushBlockConfig(TwoHandConfig):
    far: float = 1.2
    success_distance: float = 0.1
    own_goals: bool | None = None


class ShadowHandPushBlock(HandleTask):
    """Push two cubes: 2 agents x 26 actions, state 428."""

    Config = ShadowHandPushBlockConfig
    cfg: ShadowHandPushBlockConfig
    hands = palms_down()
    props = (
        cube("right", (0.0, 0.2, 0.625), COLORS[0], CUBE_RPY),
        cube("left", (0.0, -0.2, 0.625), COLORS[1], CUBE_RPY),
        table((1.0, 1.0, 0.6), friction=0.5),
        cube_goal("right_goal", GOALS[0], COLORS[0]),
        cube_goal("left_goal", GOALS[1], COLORS[1]),
    )
    places = (("right", (0.0, 0.0, 0.0)), ("left", (0.0, 0.0, 0.0)))
    tail_size = 13 + 4 * 3 + PADDING
    camera = ((-0.95, 0.6, 1.4), (0.05, 0.0, 0.62))

    def bind(self, engine: Engine) -> None:
        super().bind(engine)
        right, left = torch.tensor(GOALS, device=engine.device)
        self._observed_goals = torch.cat([left, right, left.new_zeros(PADDING)]).expand(engine.num_envs, -1)
        own = self.cfg.repaired(self.cfg.own_goals)
        self._rewarded_goals = torch.stack([right if own else left, left])  # (2, 3)

    def tail(self, engine: Engine) -> list[Tensor]:
        """The right cube's 13 numbers, both cubes' positions, both goals (left first), five zeros."""
        return [self.root("right"), self.points().flatten(1), self._observed_goals]

    def compute_reward(self, engine: Engine) -> Outcome:
        cubes = self.points()
        reach = self.reach(cubes)
        gap = distance(cubes, self._rewarded_goals)  # (E, 2)
        terms = {**both("reach", 1.2 - reach), **both("push", 2.5 - 5.0 * gap)}
        return sum_of(terms, (reach >= self.cfg.far).any(1), (gap <= self.cfg.success_distance).all(1))
