"""Tasks about points on objects that fingertips reach for: handles, grips, spouts and targets."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from dima_isaac.envs.task import Outcome
from dima_isaac.sim.engine import Engine, names_to_index
from dima_isaac.sim.rotations import length
from dima_isaac.sim.scene import Scene, Vec3
from dima_isaac.tasks.bidexhands.hands.config import TwoHandConfig
from dima_isaac.tasks.bidexhands.hands.props import TABLETOP_VIEW
from dima_isaac.tasks.bidexhands.hands.two_hands import TwoHandTask, attached

GRIP = 10.0
Place = tuple[str, Vec3]
"""A link (or an actor's root link) and a point in its axes."""


class HandleTask(TwoHandTask):
    """Two hands and points on objects.

    The tail of the state is the first prop's 13 numbers and then the ``seen`` points; a task with another tail
    overrides ``tail`` and gives its ``tail_size``.
    """

    places: Sequence[Place]
    """Of the points; the first two are the right and the left hand's (hand 0, hand 1)."""
    seen: Sequence[int] = (0, 1)
    """Which of ``places`` stand in the tail."""
    tail_size: int = 0  # 0: of the standard tail
    camera = TABLETOP_VIEW

    def __init__(self, cfg: TwoHandConfig) -> None:
        self._in_order = list(self.seen) == list(range(len(self.places)))
        self.tail_size = self.tail_size or 13 + 3 * len(self.seen)
        self.links = tuple(dict.fromkeys(link for link, _ in self.places))
        super().__init__(cfg)

    def scene(self) -> Scene:
        """The scene, with contacts that hold what is gripped."""
        return replace(super().scene(), firm_grip=GRIP)

    def bind(self, engine: Engine) -> None:
        super().bind(engine)
        self._frames = engine.body_state
        self._point_link = names_to_index(engine.link_names, [link for link, _ in self.places], engine.device)
        self._point_offset = torch.tensor([[offset for _, offset in self.places]], device=engine.device)  # (1, P, 3)
        self._seen_index = torch.tensor(self.seen, dtype=torch.int64, device=engine.device)

    def points(self) -> Tensor:
        """World positions (E, P, 3) of the points."""
        return attached(self._frames.index_select(1, self._point_link), self._point_offset)

    def tail(self, engine: Engine) -> list[Tensor]:
        """The first prop's 13 numbers, then the seen points."""
        seen = self.points() if self._in_order else self.points().index_select(1, self._seen_index)
        return [self.root(self.props[0].actor.name), seen.flatten(1)]

    def reach(self, points: Tensor) -> Tensor:
        """F (E, 2): each hand's summed distance from its five fingertips to its point of ``points`` (E, 2, 3)."""
        return distance(self.tips(), points.unsqueeze(2)).sum(-1)


def distance(a: Tensor, b: Tensor) -> Tensor:
    """Distance (...,) between positions (..., 3)."""
    return length(a - b)


def both(name: str, values: Tensor) -> dict[str, Tensor]:
    """One term for each hand, ``name_right`` and ``name_left``, from ``values`` (E, 2)."""
    return {f"{name}_right": values[:, 0], f"{name}_left": values[:, 1]}


def sum_of(terms: dict[str, Tensor], terminal: Tensor, success: Tensor) -> Outcome:
    """The outcome whose reward is the sum of ``terms`` (E,)."""
    return Outcome(torch.stack(list(terms.values())).sum(0), terminal, success, terms)
