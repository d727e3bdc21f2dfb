"""Swimmer: three links in a viscous plane. Reward is forward speed less effort."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from dima_isaac.tasks.mamujoco.robot import Harl, Robot


class Swimmer(Robot):
    """State: qpos without x and y (3), qvel (5)."""

    scenario = "Swimmer"
    partitions = ("2x1",)
    nq, nv, nu = 5, 5, 2
    state_fields: ClassVar[dict[str, int]] = {"qpos": 2, "qvel": 0}
    harl = Harl()

    def _value(self, fallen: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        forward = self._constant("forward_reward_weight") * self._speed()
        effort = self._effort()
        return forward - effort, {"forward": forward, "effort": -effort}
