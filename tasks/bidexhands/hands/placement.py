"""Where the two hands are and what holds them."""

import math
from dataclasses import dataclass, field
from enum import Enum

from dima_isaac.sim.rotations import from_rpy
from dima_isaac.sim.scene import Actor, Vec3
from dima_isaac.tasks.bidexhands.hands.config import LeftHand
from dima_isaac.tasks.bidexhands.hands.hand import FOREARM, shadow_hand

HANDS = ("hand0", "hand1")
BASE_DAMPING = (100.0, 100.0)  # linear and angular, 1/s, of the links of free hands


class BasePoint(Enum):
    """What the three base position numbers of a free hand are."""

    root = "root"
    palm = "palm"


@dataclass(frozen=True)
class Hands:
    """The two hands of a scene."""

    pos: tuple[Vec3, Vec3]
    rpy: tuple[Vec3, Vec3] = ((0.0, 0.0, 0.0), (0.0, 0.0, math.pi))
    free: bool = True
    base_point: BasePoint = BasePoint.root
    palms: bool = False  # whether the palm links are read (``TwoHandTask.palms``)
    friction: float = 1.0
    self_collision: bool = False
    start: dict[str, float] = field(default_factory=dict)  # joints that do not start at 0, for both hands

    def actors(self, left: LeftHand = LeftHand.right) -> list[Actor]:
        """The scene's first two actors, ``HANDS`` by name."""
        return [
            Actor(
                name,
                shadow_hand(mirrored=side == 1 and left is LeftHand.mirrored),
                pos=self.pos[side],
                quat=from_rpy(*self.rpy[side]),
                fixed=not self.free,
                gravity=False,
                friction=self.friction,
                damping=BASE_DAMPING if self.free else (0.0, 0.0),
                wrench=FOREARM if self.free else "",
                self_collision=self.self_collision,
            )
            for side, name in enumerate(HANDS)
        ]


def palms_down(self_collision: bool = False) -> Hands:
    """Above a table, palms down, fingers toward -x, 0.4 m apart."""
    rpy = (3.14159, 0.0, 1.57)
    return Hands(
        pos=((0.55, 0.2, 0.8), (0.55, -0.2, 0.8)),
        rpy=(rpy, rpy),
        base_point=BasePoint.palm,
        self_collision=self_collision,
    )


def palms_facing(height: float, x: float = 0.55, y: float = 0.2, self_collision: bool = False) -> Hands:
    """Fingers toward -x, palms facing each other."""
    return Hands(
        pos=((x, y, height), (x, -y, height)),
        rpy=((3.14159, 1.57, 1.57), (3.14159, -1.57, 1.57)),
        base_point=BasePoint.palm,
        self_collision=self_collision,
    )
