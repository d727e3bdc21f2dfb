"""The four doors: open or close a double door whose leaves swing toward the hands (inward) or away (outward).

    reward  {base:g} - F_R - F_L + [F_R and F_L < {near:g}] g
    where   F: the summed distances of a hand's five fingertips to its handle; D: the distance of the handles across
            the doorway; g = 2 D to open, 1 - 2 D to close
    ends    F_R or F_L >= {far:g} m
    solved  to open: both leaves beyond {open_angle:g} rad; to close: both leaves within {closed_angle:g} rad of shut
    differs published success is D > {gap:g} m to open and D < {gap:g} m to close, which a single leaf almost meets
            and a door half shut does meet (both_leaves); published doors to be closed start with their hinges turning
            at 1.57 rad/s against their stops (still_start)

CloseOutward's constants (6 and 3 where the others have 2 and 1.5) are as published. The tail lists the left handle
first, as published.
"""

import math
from dataclasses import dataclass
from enum import Enum

import torch

from dima_isaac.envs.task import Outcome
from dima_isaac.sim.engine import Engine, names_to_index
from dima_isaac.sim.scene import Vec3
from dima_isaac.tasks.bidexhands.hands.config import TwoHandConfig
from dima_isaac.tasks.bidexhands.hands.handles import HandleTask, both, sum_of
from dima_isaac.tasks.bidexhands.hands.placement import palms_facing
from dima_isaac.tasks.bidexhands.hands.props import authored

LEAVES = ("right_hinge", "left_hinge")
START = 1.57  # rad at which doors to be closed start, and the published rad/s at which they turn then


class Swing(Enum):
    """Which way the leaves go when they open."""

    inward = "Inward"  # toward the hands
    outward = "Outward"


class Aim(Enum):
    """What the hands should do."""

    open = "Open"
    close = "Close"


@dataclass
class DoorConfig(TwoHandConfig):
    """The published numbers of DoorOpenInward; the variants are YAML."""

    aim: Aim = Aim.open
    swing: Swing = Swing.inward
    base: float = 2.0
    near: float = 0.5
    far: float = 1.5
    gap: float = 0.5
    open_angle: float = 0.785
    closed_angle: float = 0.1
    both_leaves: bool | None = None
    still_start: bool | None = None


class Door(HandleTask):
    """Open or close a double door: 2 agents x 26 actions, state 417."""

    Config = DoorConfig
    cfg: DoorConfig
    seen = (1, 0)
    camera = ((1.75, 1.0, 1.5), (0.1, 0.0, 0.62))

    def __init__(self, cfg: DoorConfig) -> None:
        closing = cfg.aim is Aim.close
        inward = cfg.swing is Swing.inward
        start = dict.fromkeys(LEAVES, START if closing else 0.0)
        speed = dict.fromkeys(LEAVES, START if closing and not cfg.repaired(cfg.still_start) else 0.0)
        # turned upside down, the same door opens the other way; its handles are used on the hands' side
        rpy: Vec3 = (0.0, math.pi if inward else 0.0, 0.0)
        side = -0.04 if inward else 0.04
        x, y = (0.9, 0.5) if closing and inward else (0.55, 0.2)
        self.name = f"ShadowHandDoor{cfg.aim.value}{cfg.swing.value}"
        self.hands = palms_facing(0.6, x, y, self_collision=True)
        self.props = (
            authored("door", "door", (0.0, 0.0, 0.7), rpy, fixed=True, friction=0.1, joints=start, joint_vel=speed),
        )
        self.places = (("door/right", (side, -0.39, -0.5)), ("door/left", (side, 0.39, -0.5)))
        super().__init__(cfg)

    def bind(self, engine: Engine) -> None:
        super().bind(engine)
        self._hinges = names_to_index(engine.dof_names, [f"door/{leaf}" for leaf in LEAVES], engine.device)

    def compute_reward(self, engine: Engine) -> Outcome:
        cfg = self.cfg
        points = self.points()
        reach = self.reach(points)
        gap = (points[:, 0, 1] - points[:, 1, 1]).abs()
        near = (reach < cfg.near).all(1)
        angles = engine.dof_pos.index_select(1, self._hinges)
        if cfg.aim is Aim.open:
            gain, wide, done = 2.0 * gap, gap > cfg.gap, (angles > cfg.open_angle).all(1)
        else:
            gain, wide, done = 1.0 - 2.0 * gap, gap < cfg.gap, (angles < cfg.closed_angle).all(1)
        terms = {**both("reach", 0.5 * cfg.base - reach), cfg.aim.name: torch.where(near, gain, 0.0)}
        success = done if cfg.repaired(cfg.both_leaves) else wide
        return sum_of(terms, (reach >= cfg.far).any(1), success)
