"""The columns of the state: where each number comes from, its scale, and who sees it.

The layout is data: raw numbers are concatenated once, gathered by one index and scaled by one row.
"""

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from dima_isaac.sim.engine import Engine
from dima_isaac.tasks.bidexhands.hands.hand import ACTUATED, JOINTS, TIPS
from dima_isaac.tasks.bidexhands.hands.placement import HANDS

STATE_LIMIT = 5.0  # part of the published layout: forces saturate at 0.5 N
BASE_ACTIONS = 6  # force 3 and torque 3 on a free base; its pose is as many numbers


class StateLayout:
    """D columns: hand 0's block, hand 1's block, the task's tail. A block is documented in ``two_hands``."""

    def __init__(self, free: bool, tail: int, objects: Sequence[int]) -> None:
        """``free`` bases add columns; an object's 13 numbers begin at each of the ``tail`` columns ``objects``."""
        self.base = BASE_ACTIONS if free else 0
        self.actions = self.base + len(ACTUATED)  # of one hand
        of_joints = ("angle", "speed", "force")
        self._names = [f"{joint} joint {kind} {k}" for kind in of_joints for k, joint in enumerate(JOINTS)]
        sizes = {"fingertip": 13 * len(TIPS), "fingertip force": 6 * len(TIPS)}
        sizes |= {"base": self.base, "last action": self.actions}
        self._names += [f"{name} {k}" for name, size in sizes.items() for k in range(size)]
        self.block, self.tail = len(self._names), tail
        self.width = 2 * self.block + tail
        self._objects = list(objects)

    def seen_by(self, side: int) -> list[int]:
        """The columns that an agent of hand ``side`` sees: the hand's block and the tail."""
        return [*range(side * self.block, (side + 1) * self.block), *range(2 * self.block, self.width)]

    def positions(self, objects: Sequence[int]) -> Tensor:
        """(objects, 3) int64: the columns of the positions of objects that begin at these columns of the tail."""
        return 2 * self.block + torch.tensor(objects).unsqueeze(1) + torch.arange(3)

    def last_action(self) -> Tensor:
        """(2 * actions,) int64: the columns that hold the hands' last actions."""
        own = torch.arange(self.block - self.actions, self.block)
        return torch.cat([own, self.block + own])

    def bind(self, engine: Engine, hand_dofs: Tensor, own_fingertips: bool) -> None:
        """Resolve columns to raw numbers of ``engine``; ``hand_dofs`` (2, joints) are the hands' dofs.

        Without ``own_fingertips`` both hands' columns show hand 0's, as published; contact wrenches are their own.
        """
        dofs, links, sensors = len(engine.dof_names), len(engine.link_names), engine.force_sensor.shape[1]
        sizes = {
            **dict.fromkeys(("pos", "vel", "force"), dofs),
            "link": 13 * links,
            "wrench": 6 * sensors,
            "action": 2 * self.actions,
            "base": 2 * self.base,
            "tail": self.tail,
        }
        start = dict(zip(sizes, accumulate(sizes.values(), initial=0), strict=False))
        index: list[Tensor] = []
        scale: list[Tensor] = []
        shift: list[Tensor] = []

        def add(columns: Tensor, factor: Tensor | float = 1.0, offset: Tensor | float = 0.0) -> None:
            index.append(columns)
            for rows, value in ((scale, factor), (shift, offset)):
                rows.append(torch.as_tensor(value, dtype=torch.float32).expand(len(columns)))

        def of_hand(part: str, side: int, count: int) -> Tensor:
            return start[part] + side * count + torch.arange(count)

        for side in range(len(HANDS)):
            joints = hand_dofs[side].cpu()
            lower, upper = engine.dof_lower.cpu()[joints], engine.dof_upper.cpu()[joints]
            span = upper - lower
            add(joints, 2.0 / span, -(upper + lower) / span)
            add(start["vel"] + joints, 0.2)
            add(start["force"] + joints, 10.0)
            add(of_hand("link", side if own_fingertips else 0, 13 * len(TIPS)))
            add(of_hand("wrench", side, 6 * len(TIPS)), 10.0)
            add(of_hand("base", side, self.base))
            add(of_hand("action", side, self.actions))
        tail = torch.ones(self.tail)
        for first in self._objects:
            tail[first + 10 : first + 13] = 0.2  # angular velocities
        add(start["tail"] + torch.arange(self.tail), tail)
        self._index, self._scale, self._shift = (torch.cat(rows).to(engine.device) for rows in (index, scale, shift))
        shown = torch.nonzero(self._index < dofs).flatten()
        self._angles, self.dofs = shown, self._index[shown]
        """The columns of joint positions, and the dofs whose positions they hold."""

    def state(self, raw: list[Tensor]) -> Tensor:
        """(E, D) from raw numbers of each environment, in the order of ``bind``: scaled, shifted and clipped."""
        gathered = torch.cat(raw, 1).index_select(1, self._index)
        return torch.addcmul(self._shift, gathered, self._scale).clamp_(-STATE_LIMIT, STATE_LIMIT)

    def joint_positions(self, state: Tensor) -> Tensor:
        """Positions of ``dofs`` (E, hands' joints) that ``state`` (E, D) shows."""
        return (state[:, self._angles] - self._shift[self._angles]) / self._scale[self._angles]

    def describe(self, index: int) -> str | None:
        """A short name of a hand's column; None in the tail."""
        side, k = divmod(index, self.block)
        return f"{HANDS[side]} {self._names[k]}" if side < len(HANDS) else None
