"""ShadowHandBlockStack: stack the left hand's cube on the right hand's.

reward  1.5 - F_R - F_L + [F_R and F_L < {near:g}] 2 (0.24 - g_L - g_R) + [g_L and g_R < {stack_near:g}] 50 (0.05
        - |0.675 - z_L|)
where   F: the summed distances of a hand's five fingertips to its cube; g: the distance of a cube to its place,
        the left one's on top; z_L: the left cube's height
ends    F_R or F_L >= {far:g} m
solved  the left cube stands on the right one: centres within {stack_offset:g} m across and {cube_height:g} +-
        {stack_slack:g} m up
differs published success is a last term above 1, which a cube held beside the other meets (stacked); friction of
        cube on table and in the hand: MuJoCo takes the larger of two where PhysX averages, 0.63 and 0.75 for
        0.23 and 0.38
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from dima_isaac.envs.task import Outcome
from dima_isaac.sim.engine import Engine
from dima_isaac.sim.rotations import length
from dima_isaac.tasks.bidexhands.hands.config import TwoHandConfig
from dima_isaac.tasks.bidexhands.hands.handles import HandleTask, both, distance, sum_of
from dima_isaac.tasks.bidexhands.hands.placement import BasePoint, Hands
from dima_isaac.tasks.bidexhands.hands.props import CUBE_RPY, cube, cube_goal, table

PLACES = ((0.0, 0.0, 0.625), (0.0, 0.0, 0.675))  # of the right (bottom) and the left (top) cube
COLORS = ((0.84, 0.32, 0.26, 1.0), (0.25, 0.45, 0.75, 1.0))
PADDING = 4  # zeros that end the published observation


@dataclass
class ShadowHandBlockStackConfig(TwoHandConfig):
    near: float = 0.5
    far: float = 0.75
    stack_near: float = 0.07
    success_term: float = 1.0
    cube_height: float = 0.05
    stack_offset: float = 0.025
    stack_slack: float = 0.01
    stacked: bool | None = None


class ShadowHandBlockStack(HandleTask):
    """Stack two cubes: 2 agents x 26 actions, state 428."""

    Config = ShadowHandBlockStackConfig
    cfg: ShadowHandBlockStackConfig
    hands = Hands(
        pos=((0.0, 0.6, 0.7), (0.0, -0.6, 0.7)),
        rpy=((3.14159, 0.0, 3.14159), (3.14159, 0.0, 0.0)),
        base_point=BasePoint.palm,
        friction=0.5,
        self_collision=True,
    )
    props = (
        cube("right", (0.0, 0.1, 0.625), COLORS[0], CUBE_RPY, density=100.0, friction=0.25),
        cube("left", (0.0, -0.1, 0.625), COLORS[1], CUBE_RPY, density=100.0, friction=0.25),
        table((0.5, 1.0, 0.6), friction=0.2),
        cube_goal("right_goal", PLACES[0], COLORS[0]),
        cube_goal("left_goal", PLACES[1], COLORS[1]),
    )
    places = (("right", (0.0, 0.0, 0.0)), ("left", (0.0, 0.0, 0.0)))
    tail_size = 13 + 13 + PADDING
    objects = (0, 13)
    camera = ((1.1, 0.2, 1.25), (0.0, 0.04, 0.63))

    def bind(self, engine: Engine) -> None:
        super().bind(engine)
        self._places_of_cubes = torch.tensor(PLACES, device=engine.device)
        self._padding = torch.zeros(engine.num_envs, PADDING, device=engine.device)

    def tail(self, engine: Engine) -> list[Tensor]:
        """13 numbers of the right cube and of the left one, four zeros."""
        return [self.root("right"), self.root("left"), self._padding]

    def compute_reward(self, engine: Engine) -> Outcome:
        cfg = self.cfg
        cubes = self.points()
        reach = self.reach(cubes)
        gap = distance(cubes, self._places_of_cubes)
        right, left = cubes.unbind(1)
        near = (reach < cfg.near).all(1)
        height = 50.0 * (0.05 - (PLACES[1][2] - left[:, 2]).abs())
        stack = torch.where((gap < cfg.stack_near).all(1), height, 0.0)
        terms = {
            **both("reach", 0.75 - reach),
            "bring": torch.where(near, 2.0 * (0.24 - gap.sum(1)), 0.0),
            "stack": stack,
        }
        if cfg.repaired(cfg.stacked):
            offset = left - right
            level = (offset[:, 2] - cfg.cube_height).abs() < cfg.stack_slack
            success = level & (length(offset[:, :2]) < cfg.stack_offset)
        else:
            success = stack > cfg.success_term
        return sum_of(terms, (reach >= cfg.far).any(1), success)
