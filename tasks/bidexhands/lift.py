"""ShadowHandLiftUnderarm: two hands lift a pot by its handles.

reward  0.2 - d_R - d_L + [d_R and d_L < {near:g}] 3 (0.385 - d)
where   d_R, d_L: the distances of the palm centres to the pot's handles; d: the pot's distance to its goal, 0.4 m
        above the place where the original spawns it
ends    the pot at or below {drop_height:g} m, or d_R or d_L >= {far:g} m
solved  d < {success_distance:g} m
differs the pot starts at rest on the table, not 1.5 cm inside it; friction 3 is on all of the pot, published on one of
        its shapes
"""

from dataclasses import dataclass

import torch

from dima_isaac.envs.task import Outcome
from dima_isaac.sim.engine import Engine
from dima_isaac.sim.scene import Actor, Ellipsoid, Vec3
from dima_isaac.tasks.bidexhands.hands.config import TwoHandConfig
from dima_isaac.tasks.bidexhands.hands.handles import HandleTask, both, distance, sum_of
from dima_isaac.tasks.bidexhands.hands.placement import BasePoint, Hands
from dima_isaac.tasks.bidexhands.hands.props import MARKER, authored, table
from dima_isaac.tasks.bidexhands.hands.starts import Prop

GOAL: Vec3 = (0.0, -0.6, 0.85)


@dataclass
class ShadowHandLiftUnderarmConfig(TwoHandConfig):
    near: float = 0.08
    far: float = 0.2
    drop_height: float = 0.3
    success_distance: float = 0.05


class ShadowHandLiftUnderarm(HandleTask):
    """Lift a pot: 2 agents x 26 actions, state 417."""

    Config = ShadowHandLiftUnderarmConfig
    cfg: ShadowHandLiftUnderarmConfig
    hands = Hands(pos=((0.0, 0.05, 0.45), (0.0, -1.25, 0.45)), base_point=BasePoint.palm, self_collision=True)
    props = (
        authored("pot", "pot", (0.0, -0.6, 0.465), friction=3.0),
        table((0.3, 0.3, 0.4), at=(0.0, -0.6), friction=3.0),
        Prop(Actor("goal", Ellipsoid((0.03, 0.03, 0.03), color=MARKER), GOAL, marker=True)),
    )
    places = (("pot", (0.0, 0.15, 0.06)), ("pot", (0.0, -0.15, 0.06)))
    camera = ((1.15, -0.6, 1.1), (0.0, -0.6, 0.5))

    def compute_reward(self, engine: Engine) -> Outcome:
        cfg = self.cfg
        grip = distance(self.points(), self.palms())  # (E, 2)
        pot = self.root("pot")[:, :3]
        away = distance(pot, self.root("goal")[:, :3])
        held = (grip < cfg.near).all(1)
        terms = {**both("grip", 0.1 - grip), "lift": torch.where(held, 3.0 * (0.385 - away), 0.0)}
        terminal = (pot[:, 2] <= cfg.drop_height) | (grip >= cfg.far).any(1)
        return sum_of(terms, terminal, away < cfg.success_distance)
