"""ShadowHandSwitch: press two rocker switches, one with each hand.

    reward  2 - F_R - F_L + 50 (1.4 - Z)
    where   F: the summed distances of a hand's five fingertips to its rocker; Z: the summed heights of the two
            rockers' points
    ends    only with time
    solved  both rockers within {pressed_angle:g} rad of fully pressed
    differs published success, 1.4 - Z > 0.05, is out of the rockers' reach (0.0166 at most) and exists in neither
            profile; the published rockers are never put back, here they start at rest, which is their upper stop

No spring returns a rocker; its own weight turns it up, as published.
"""

import math
from dataclasses import dataclass

import torch

from dima_isaac.envs.task import Outcome
from dima_isaac.sim.engine import Engine, names_to_index
from dima_isaac.tasks.bidexhands.hands.config import TwoHandConfig
from dima_isaac.tasks.bidexhands.hands.handles import HandleTask, both, sum_of
from dima_isaac.tasks.bidexhands.hands.placement import palms_down
from dima_isaac.tasks.bidexhands.hands.props import authored, table

SWITCHES = {"right": 0.2, "left": -0.2}  # y, m
REST = 0.55850536  # rad, the upper stop


@dataclass
class ShadowHandSwitchConfig(TwoHandConfig):
    pressed_angle: float = 0.1


class ShadowHandSwitch(HandleTask):
    """Press two switches: 2 agents x 26 actions, state 417."""

    Config = ShadowHandSwitchConfig
    cfg: ShadowHandSwitchConfig
    hands = palms_down(self_collision=True)
    props = (
        *(
            authored(name, "switch", (0.0, y, 0.65), (math.pi, 1.57, 0.0), fixed=True, joints={"rocker_hinge": REST})
            for name, y in SWITCHES.items()
        ),
        table((0.5, 1.0, 0.55)),
    )
    places = tuple((f"{name}/rocker", (0.0, 0.05, -0.02)) for name in SWITCHES)

    def bind(self, engine: Engine) -> None:
        super().bind(engine)
        names = [f"{name}/rocker_hinge" for name in SWITCHES]
        self._rockers = names_to_index(engine.dof_names, names, engine.device)

    def compute_reward(self, engine: Engine) -> Outcome:
        points = self.points()
        reach = self.reach(points)
        height = points[..., 2].sum(1)
        angles = engine.dof_pos.index_select(1, self._rockers)
        pressed = (angles < self.cfg.pressed_angle).all(1)
        terms = {**both("reach", 1.0 - reach), "press": 50.0 * (1.4 - height)}
        return sum_of(terms, torch.zeros_like(pressed), pressed)
