"""ShadowHandKettle: pour water (balls) from a kettle into a bucket.

reward  1 - F_R - F_L + [F_R and F_L < {near:g}] (0.5 - 2 e)
where   F: the summed distances of a hand's five fingertips to the kettle's handle (right) and to the bucket's
        point (left); e: from the spout to the bucket's point
ends    the bucket's point at or below {drop_height:g} m
solved  {success_share:g} of the balls are in the bucket
differs published success is e < {success_distance:g} m, for a bucket's point 4.7 cm below the bucket's floor
        (count_balls); the balls start apart inside the kettle, not inside each other above it
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from dima_isaac.envs.task import Outcome
from dima_isaac.schema import FewOrZero
from dima_isaac.sim.engine import Engine
from dima_isaac.sim.rotations import length, rotate_inverse
from dima_isaac.sim.scene import Actor, Ellipsoid
from dima_isaac.tasks.bidexhands.hands.config import TwoHandConfig
from dima_isaac.tasks.bidexhands.hands.handles import HandleTask, both, distance, sum_of
from dima_isaac.tasks.bidexhands.hands.placement import palms_facing
from dima_isaac.tasks.bidexhands.hands.props import TABLETOP_VIEW, authored, table
from dima_isaac.tasks.bidexhands.hands.starts import Prop

HANDLE, BUCKET, SPOUT = 0, 1, 2
BALL = 0.005  # radius, m
PITCH = 0.011
INSIDE = (0.052, -0.05, 0.045)  # radius, lowest and highest z in the bucket's frame, m
WATER = (0.3, 0.6, 0.9, 1.0)


@dataclass
class ShadowHandKettleConfig(TwoHandConfig):
    balls: FewOrZero = 30
    near: float = 0.7
    drop_height: float = 0.2
    success_distance: float = 0.05
    success_share: float = 0.5
    count_balls: bool | None = None


class ShadowHandKettle(HandleTask):
    """Pour: 2 agents x 26 actions, state 417."""

    Config = ShadowHandKettleConfig
    cfg: ShadowHandKettleConfig
    hands = palms_facing(0.6)
    places = (("kettle", (0.15, 0.0, 0.0)), ("bucket", (0.0, 0.0, -0.1)), ("kettle", (-0.2, 0.0, 0.07)))
    seen = (HANDLE, BUCKET)
    camera = ((TABLETOP_VIEW[0][0], -0.75, 1.0), (0.1, -0.1, 0.5))

    def __init__(self, cfg: ShadowHandKettleConfig) -> None:
        self.props = (
            authored("kettle", "kettle", (0.0, 0.0, 0.474), (0.0, 0.0, 1.57)),
            authored("bucket", "bucket", (0.0, -0.3, 0.453)),
            table((0.5, 1.0, 0.4)),
            *(_ball(i) for i in range(cfg.balls)),
        )
        super().__init__(cfg)

    def bind(self, engine: Engine) -> None:
        super().bind(engine)
        first = self._actor["ball0"] if self.cfg.balls else 0
        self._balls = slice(first, first + self.cfg.balls)

    def compute_reward(self, engine: Engine) -> Outcome:
        cfg = self.cfg
        points = self.points()
        reach = self.reach(points[:, :2])
        gap = distance(points[:, BUCKET], points[:, SPOUT])
        near = (reach < cfg.near).all(1)
        terms = {**both("reach", 0.5 - reach), "pour": torch.where(near, 0.5 - 2.0 * gap, 0.0)}
        if cfg.repaired(cfg.count_balls):
            success = self.poured(engine) >= cfg.success_share * max(cfg.balls, 1)
        else:
            success = gap < cfg.success_distance
        return sum_of(terms, points[:, BUCKET, 2] <= cfg.drop_height, success)

    def poured(self, engine: Engine) -> Tensor:
        """How many balls (E,) are in the bucket."""
        radius, low, high = INSIDE
        bucket = self.root("bucket").unsqueeze(1)
        local = rotate_inverse(bucket[..., 3:7], engine.root_state[:, self._balls, :3] - bucket[..., :3])
        level = (local[..., 2] > low) & (local[..., 2] < high)
        return (level & (length(local[..., :2]) < radius)).sum(1)


def _ball(i: int) -> Prop:
    """One of the balls that lie side by side on the kettle's floor."""
    pos = (PITCH * (i % 6 - 2.5), PITCH * (i // 6 - 2.0), 0.474 - 0.066 + BALL)
    actor = Actor(f"ball{i}", Ellipsoid((BALL, BALL, BALL), density=1000.0, color=WATER), pos)
    return Prop(actor, jitter="object", level=True)
