"""HalfCheetah: run. Reward is forward speed less effort; an episode never ends by itself."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from dima_isaac.tasks.mamujoco.robot import Harl, Robot


class HalfCheetah(Robot):
    """State: qpos without x (8), qvel (9)."""

    scenario = "HalfCheetah"
    partitions = ("2x3", "6x1")
    nq, nv, nu = 9, 9, 6
    state_fields: ClassVar[dict[str, int]] = {"qpos": 1, "qvel": 0}
    harl = Harl()
    normal_velocity = True

    def _value(self, fallen: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        forward = self._constant("forward_reward_weight") * self._speed()
        effort = self._effort()
        return forward - effort, {"forward": forward, "effort": -effort}
