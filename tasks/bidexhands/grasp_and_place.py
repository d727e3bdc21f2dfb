"""ShadowHandGraspAndPlace: put a cube into a bucket.

reward  exp(-10 F_R) + exp(-10 F_L) + 2 exp(-10 d)
where   F: the summed distances of a hand's five fingertips to the bucket (right) and to the cube (left); d: the
        distance of the cube to the bucket
ends    F_R or F_L >= {far:g} m
solved  the cube's centre is within {inside_radius:g} m of the bucket's axis, between its floor and its rim
differs published success is d < {success_distance:g} m, from 0.4 m at the start (inside); the bucket's second
        orientation in the published observation is its link's, turned by roll pi/2 and yaw -pi/2 in its root
        (root_orientation); bucket and cube start at rest on the table, not inside it
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dima_isaac.envs.task import Outcome
from dima_isaac.sim.engine import Engine
from dima_isaac.sim.rotations import from_rpy, length, quat_conj, quat_div, rotate_inverse
from dima_isaac.tasks.bidexhands.hands.config import TwoHandConfig
from dima_isaac.tasks.bidexhands.hands.handles import HandleTask, both, distance, sum_of
from dima_isaac.tasks.bidexhands.hands.placement import palms_down
from dima_isaac.tasks.bidexhands.hands.props import CUBE_RPY, authored, cube, table

FLOOR, RIM = -0.05, 0.0445  # z in the bucket's frame, m
LINK = from_rpy(math.pi / 2.0, 0.0, -math.pi / 2.0)  # the original's one link, in the bucket's frame


@dataclass
class ShadowHandGraspAndPlaceConfig(TwoHandConfig):
    far: float = 1.5
    success_distance: float = 0.2
    inside_radius: float = 0.04
    inside: bool | None = None
    root_orientation: bool | None = None


class ShadowHandGraspAndPlace(HandleTask):
    """Put a cube into a bucket: 2 agents x 26 actions, state 425."""

    Config = ShadowHandGraspAndPlaceConfig
    cfg: ShadowHandGraspAndPlaceConfig
    hands = palms_down()
    props = (
        authored("bucket", "bucket", (0.0, 0.2, 0.653)),
        cube("cube", (0.0, -0.2, 0.625), (0.9, 0.55, 0.2, 1.0), CUBE_RPY),
        table((1.0, 1.0, 0.6)),
    )
    places = (("bucket", (0.0, 0.0, 0.0)), ("cube", (0.0, 0.0, 0.0)))
    tail_size = 13 + 7 + 7

    def bind(self, engine: Engine) -> None:
        """Also keep the rotation from the bucket's link to its root."""
        super().bind(engine)
        self._from_link = quat_conj(torch.tensor(LINK, device=engine.device)).expand(engine.num_envs, -1)

    def tail(self, engine: Engine) -> list[Tensor]:
        """The bucket's 13 numbers, then the poses of bucket (published: its orientation is the link's) and cube."""
        bucket, cube_ = self.root("bucket"), self.root("cube")
        quat = bucket[:, 3:7]
        if not self.cfg.repaired(self.cfg.root_orientation):
            quat = quat_div(quat, self._from_link)
        return [bucket, bucket[:, :3], quat, cube_[:, :7]]

    def compute_reward(self, engine: Engine) -> Outcome:
        cfg = self.cfg
        bucket, cube_ = self.root("bucket"), self.root("cube")
        reach = self.reach(torch.stack([bucket[:, :3], cube_[:, :3]], 1))
        gap = distance(bucket[:, :3], cube_[:, :3])
        terms = {**both("reach", torch.exp(-10.0 * reach)), "place": 2.0 * torch.exp(-10.0 * gap)}
        if cfg.repaired(cfg.inside):
            local = rotate_inverse(bucket[:, 3:7], cube_[:, :3] - bucket[:, :3])
            level = (local[:, 2] > FLOOR) & (local[:, 2] < RIM)
            success = level & (length(local[:, :2]) < cfg.inside_radius)
        else:
            success = gap < cfg.success_distance
        return sum_of(terms, (reach >= cfg.far).any(1), success)
